"""Erase a class from a segmentation network: scenes of garments, 64x64, composed of Fashion-MNIST, on a CPU.

    delete-jax --config=configs/scenes.py --workdir=runs/scenes

Data: as for `configs/fashion_mnist.py`.
"""

from delete_jax.config import Config, DataConfig, ModelConfig, TrainConfig, UnlearnConfig
from delete_jax.tasks import Segmentation


def get_config(arg: str = "") -> Config:
    config = Config(
        task=Segmentation(),
        data=DataConfig(name="scenes"),
        model=ModelConfig(name="deeplab_small"),
        train=TrainConfig(epochs=20, lr=0.1, batch_size=16),
        unlearn=UnlearnConfig(forget=(6,), epochs=5, lr=1e-2, batch_size=16),
    )
    if arg == "quick":
        config.train.epochs = config.unlearn.epochs = 1
        config.retrain = False
    elif arg:
        raise ValueError(f"configs/scenes.py:{arg}: the only variant is 'quick'")
    return config
