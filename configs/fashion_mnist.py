"""Erase a class of Fashion-MNIST (60 000 real photographs of garments, 28x28) from a small ResNet on a CPU.

    delete-jax --config=configs/fashion_mnist.py --workdir=runs/fashion_mnist

Data: TFDS' `fashion_mnist` prepared as array_record, or `--config.data.source=FOLDER` with the four IDX files (Debian's
package dataset-fashion-mnist puts them in /usr/share/datasets/fashion-mnist, where they are found by themselves).
"""

from delete_jax.config import Config, DataConfig, ModelConfig, TrainConfig, UnlearnConfig, choose_variant, shorten


def get_config(arg: str = "") -> Config:
    _, is_quick = choose_variant("configs/fashion_mnist.py", arg, [])
    config = Config(
        data=DataConfig(name="fashion_mnist"),
        model=ModelConfig(name="resnet_small"),
        train=TrainConfig(epochs=3, lr=0.1, batch_size=128),
        unlearn=UnlearnConfig(forget=(9,), method="delete", batch_norm="train", epochs=5, lr=1e-2, batch_size=128),
    )
    return shorten(config) if is_quick else config
