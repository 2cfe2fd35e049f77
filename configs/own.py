"""Forget a class of your own images: a folder with train/CLASS and test/CLASS, or arrays in a file. No setting is tuned to one dataset.

    delete-jax --config=own --config.data.name=folder:PATH --config.unlearn.forget=CLASS --workdir=runs/own
    delete-jax --config=own:arrays --config.data.name=arrays:FILE.npz --config.unlearn.forget=CLASS --workdir=runs/own

In a checkout, `--config=configs/own.py` is the same. Photographs are brought to 64 pixels (`--config.data.size`); arrays stay as they
are. The original is trained here unless `--config.teacher` names one, whose architecture `--config.model.name` is then.

The class is unlearned by the default method without a rate (`lr="auto"`): a rate means something else on every network.
"""

from delete_jax.config import Config, DataConfig, ModelConfig, TrainConfig, UnlearnConfig, choose_variant, shorten

VARIANTS = {
    "folder": DataConfig(name="folder:", size=64, validation=0.15),
    "arrays": DataConfig(name="arrays:", validation=0.15),
}
CLASS = "CLASS"
"""Stands for the class that the command must name: no dataset has one of this name, and the message lists those that there are."""


def get_config(arg: str = "") -> Config:
    name, is_quick = choose_variant("configs/own.py", arg, VARIANTS)
    data = VARIANTS[name]
    config = Config(
        data=DataConfig(name=data.name, size=data.size, validation=data.validation),
        model=ModelConfig(name="resnet_small"),
        train=TrainConfig(epochs=20, lr=0.1, batch_size=64),
        unlearn=UnlearnConfig(forget=(CLASS,), lr="auto", batch_size=32),
    )
    if not is_quick:
        return config
    config = shorten(config)
    config.unlearn.epochs = None  # without a rate, it takes as many steps as erasing needs
    return config
