"""Erase one digit from a network trained on scikit-learn's handwritten digits (8x8, real scans, nothing to download).

delete-jax --config=configs/digits.py --workdir=runs/digits
"""

from delete_jax.config import Config, DataConfig, ModelConfig, TrainConfig, UnlearnConfig, choose_variant


def get_config(arg: str = "") -> Config:
    _, is_quick = choose_variant("configs/digits.py", arg, [])
    config = Config(
        data=DataConfig(name="digits", validation=0.15),
        model=ModelConfig(name="resnet_tiny"),
        train=TrainConfig(epochs=15, lr=0.1, batch_size=64),
        unlearn=UnlearnConfig(forget=(3,), epochs=10, lr=3e-3, batch_size=32),
    )
    if is_quick:
        config.train.epochs = config.unlearn.epochs = 1
    return config
