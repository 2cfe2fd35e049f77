"""Erase a class from a segmentation network: scenes of garments, 64x64, composed of Fashion-MNIST, on a CPU.

    delete-jax --config=configs/scenes.py --workdir=runs/scenes

Data: as for `configs/fashion_mnist.py`.
"""

from delete_jax.config import Config, DataConfig, ModelConfig, TrainConfig, UnlearnConfig, choose_variant, shorten
from delete_jax.tasks import Segmentation


def get_config(arg: str = "") -> Config:
    _, is_quick = choose_variant("configs/scenes.py", arg, [])
    config = Config(
        task=Segmentation(),
        data=DataConfig(name="scenes"),
        model=ModelConfig(name="deeplab_small"),
        train=TrainConfig(epochs=20, lr=0.1, batch_size=16),
        unlearn=UnlearnConfig(forget=(6,), method="delete", batch_norm="train", epochs=5, lr=1e-2, batch_size=16),
    )
    return shorten(config) if is_quick else config
