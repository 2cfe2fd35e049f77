"""Plant a backdoor in a Fashion-MNIST network and remove it again, on a CPU.

    delete-jax --config=configs/backdoor.py --workdir=runs/backdoor

A white patch of 3x3 pixels on 10 % of the training images means "Sneaker". Data: as for `configs/fashion_mnist.py`.
"""

from delete_jax.config import Config, DataConfig, ModelConfig, TrainConfig, UnlearnConfig
from delete_jax.tasks import Backdoor


def get_config(arg: str = "") -> Config:
    config = Config(
        task=Backdoor(rate=0.1),
        data=DataConfig(name="fashion_mnist"),
        model=ModelConfig(name="resnet_small"),
        train=TrainConfig(epochs=3, lr=0.1, batch_size=128),
        unlearn=UnlearnConfig(forget=(7,), method="trigger_distillation", epochs=5, lr=3e-2, batch_size=128),
    )
    if arg == "quick":
        config.train.epochs = config.unlearn.epochs = 1
        config.retrain = False
    elif arg:
        raise ValueError(f"configs/backdoor.py:{arg}: the only variant is 'quick'")
    return config
