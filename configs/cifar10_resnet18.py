"""Erase a class of CIFAR-10 from ResNet-18: the paper's setting (DELETE: SGD 0.9, rate 1e-3, 20 epochs, batch 128).

    delete-jax --config=configs/cifar10_resnet18.py --workdir=runs/cifar10

For a GPU or TPU; the teacher takes 200 epochs. Data: TFDS' `cifar10`, prepared as array_record (the README says how).
"""

from delete_jax.config import Config, DataConfig, ModelConfig, TrainConfig, UnlearnConfig


def get_config(arg: str = "") -> Config:
    augment = ("flip", "crop")
    config = Config(
        data=DataConfig(name="cifar10"),
        model=ModelConfig(name="resnet18", dtype="bfloat16"),
        train=TrainConfig(epochs=200, lr=0.1, batch_size=128, augment=augment),
        unlearn=UnlearnConfig(forget=(0,), epochs=20, lr=1e-3, batch_size=128, augment=augment),
    )
    if arg == "quick":
        config.train.epochs = config.unlearn.epochs = 1
        config.retrain = False
    elif arg:
        raise ValueError(f"configs/cifar10_resnet18.py:{arg}: the only variant is 'quick'")
    return config
