"""Erase one digit from a network trained on scikit-learn's handwritten digits (8x8, real scans, nothing to download).

    delete-jax --config=configs/digits.py --workdir=runs/digits
    delete-jax --config=digits:delete --workdir=runs/digits_delete

The first is unlearning by default: anchored, statistics frozen, no rate to choose. The second is the method of the DELETE paper (arXiv
2503.23751), statistics following the forget samples, at a rate chosen on validation data; pages that compare methods start from it.
"""

import dataclasses

from delete_jax.config import Config, DataConfig, ModelConfig, TrainConfig, UnlearnConfig, choose_variant, shorten

VARIANTS = {
    "default": UnlearnConfig(forget=(3,), batch_size=32),
    "delete": UnlearnConfig(forget=(3,), method="delete", batch_norm="train", epochs=10, lr=3e-3, batch_size=32),
}


def get_config(arg: str = "") -> Config:
    name, is_quick = choose_variant("configs/digits.py", arg, VARIANTS)
    config = Config(
        data=DataConfig(name="digits", validation=0.15),
        model=ModelConfig(name="resnet_tiny"),
        train=TrainConfig(epochs=15, lr=0.1, batch_size=64),
        unlearn=dataclasses.replace(VARIANTS[name]),
    )
    if not is_quick:
        return config
    return dataclasses.replace(shorten(config), retrain=True)  # the reference is quick, too
