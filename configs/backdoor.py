"""Plant a backdoor in a Fashion-MNIST network and remove it again, on a CPU.

    delete-jax --config=configs/backdoor.py --workdir=runs/backdoor

A white patch of 3x3 pixels on 10 % of the training images means "Sneaker". Data: as for `configs/fashion_mnist.py`.

CIFAR-10 with ResNet-18, as in the DELETE paper (arXiv 2503.23751), for a GPU or TPU:

    delete-jax --config=backdoor:cifar10 --workdir=runs/backdoor_cifar10

The paper's code has no backdoor experiment, so these settings are not its own: the network and its training are those of
`configs/cifar10.py`, but without augmentation, which would move the patch or cut it off. DELETE is given clean samples as well
(docs/tasks/backdoor.md says why).
"""

from delete_jax.config import Config, DataConfig, ModelConfig, TrainConfig, UnlearnConfig, choose_variant, shorten
from delete_jax.tasks import Backdoor


def fashion_mnist() -> Config:
    return Config(
        task=Backdoor(rate=0.1),
        data=DataConfig(name="fashion_mnist"),
        model=ModelConfig(name="resnet_small"),
        train=TrainConfig(epochs=3, lr=0.1, batch_size=128),
        unlearn=UnlearnConfig(
            forget=(7,), method="trigger_distillation", batch_norm="train", epochs=5, lr=3e-2, batch_size=128
        ),
    )


def cifar10() -> Config:
    return Config(
        task=Backdoor(rate=0.1),
        data=DataConfig(name="cifar10"),
        model=ModelConfig(name="resnet18", dtype="bfloat16"),
        train=TrainConfig(epochs=150, lr=0.1, batch_size=128),
        unlearn=UnlearnConfig(
            forget=(0,),
            method="delete",
            hyperparameters={"remain": True},
            batch_norm="train",
            epochs=20,
            lr=1e-3,
            batch_size=128,
        ),
    )


VARIANTS = {"fashion_mnist": fashion_mnist, "cifar10": cifar10}


def get_config(arg: str = "") -> Config:
    name, is_quick = choose_variant("configs/backdoor.py", arg, VARIANTS)
    config = VARIANTS[name]()
    return shorten(config) if is_quick else config
