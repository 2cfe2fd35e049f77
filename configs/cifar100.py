"""Erase 1, 2, 5, 10, 20 or 50 classes of CIFAR-100 from ResNet-18, as in the DELETE paper; for a GPU or TPU.

    delete-jax --config=configs/cifar100.py --workdir=runs/cifar100
    delete-jax --config=cifar100:10 --workdir=runs/cifar100_10
    delete-jax --config=cifar100:10_paper --workdir=runs/cifar100_10_paper

Data: TFDS' `cifar100`, prepared as array_record: as the README says for `cifar10`.

Published (arXiv 2503.23751; the paper's code, shaaaaron/DELETE, config/cifar100_my-resnet18.yaml): ResNet-18 with the stem for small
images, trained from scratch for 150 epochs at rate 0.1, batch 128, decay 5e-4, the rate divided by ten every 40 epochs; the first
classes of a fixed order are forgotten in 20 epochs of SGD with momentum 0.9 and without decay, at a constant rate; images are mirrored and
cropped in both. The code's rate, 5e-5, is its common default for all methods.

What differs here: all forgotten classes are masked at every sample (`unlearn.mask="own"` masks its own class, as the code does); the rate of
training falls along a cosine; the last network is kept, where the code keeps the one with the best test accuracy; 10 % of the
training images are held out; the network computes in bfloat16.

`paper` (one class), `2_paper`, … are the code's settings themselves. What still differs: the last network is kept, one image of each class
is held out, and pixels are normalised by the data's own statistics. The unlearning rate was not published.
"""

from delete_jax.config import (
    Config,
    DataConfig,
    ModelConfig,
    TrainConfig,
    UnlearnConfig,
    as_published,
    choose_variant,
    shorten,
)

ORDER = (
    25, 58, 38, 23, 96, 54, 51, 49, 98, 66, 16, 52, 40, 71, 63, 79, 53, 12, 46, 55, 83, 27, 41, 20, 30,
    14, 70, 45, 61, 29, 4, 39, 21, 87, 60, 68, 75, 2, 92, 5, 57, 42, 0, 8, 97, 31, 50, 47, 13, 80,
)  # fmt: skip
COUNTS = ("1", "2", "5", "10", "20", "50")
PUBLISHED = {"paper" if count == "1" else f"{count}_paper": count for count in COUNTS}
VARIANTS = (*COUNTS, *PUBLISHED)


def get_config(arg: str = "") -> Config:
    name, is_quick = choose_variant("configs/cifar100.py", arg, VARIANTS)
    count, augment = PUBLISHED.get(name, name), ("flip", "crop")
    config = Config(
        data=DataConfig(name="cifar100"),
        model=ModelConfig(name="resnet18", dtype="bfloat16"),
        train=TrainConfig(epochs=150, lr=0.1, batch_size=128, augment=augment),
        unlearn=UnlearnConfig(
            forget=ORDER[: int(count)],
            method="delete",
            batch_norm="train",
            epochs=20,
            lr=5e-5,
            batch_size=128,
            augment=augment,
        ),
    )
    config = as_published(config) if name in PUBLISHED else config
    return shorten(config) if is_quick else config
