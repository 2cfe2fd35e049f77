"""Erase a class of Tiny-ImageNet (200 classes, 64x64) from ResNet-18, as in the DELETE paper; for a GPU or TPU.

    delete-jax --config=configs/tiny_imagenet.py --config.data.name=tiny_imagenet:PATH --workdir=runs/tiny_imagenet
    delete-jax --config=tiny_imagenet:paper --config.data.name=tiny_imagenet:PATH --workdir=runs/tiny_imagenet_paper

Data: the folder of http://cs231n.stanford.edu/tiny-imagenet-200.zip, unpacked; its val split is the test split here.

Published (arXiv 2503.23751; the paper's code, shaaaaron/DELETE, config/tiny_imagenet_resnet18.yaml): torchvision's ResNet-18, trained from
scratch for 150 epochs at rate 0.1, batch 64, decay 5e-4, the rate divided by ten every 40 epochs; images are mirrored, cropped out of 4
black pixels around and resized to 224; class 126 (classes in the order of their WordNet ids) is forgotten in 20 epochs of SGD with momentum 0.9
and without decay, with frozen batch statistics. The code's rate, 5e-5, is its common default for all methods.

What differs here: the rate of training falls along a cosine; the last network is kept, where the code keeps the one with the best
val accuracy; 10 % of the training images are held out; the network computes in bfloat16.

`paper` is the code's settings themselves. What still differs: the last network is kept, one image of each class is held out, and pixels
are normalised by the data's own statistics. The unlearning rate was not published.
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

VARIANTS = ("resnet18", "paper")


def get_config(arg: str = "") -> Config:
    name, is_quick = choose_variant("configs/tiny_imagenet.py", arg, VARIANTS)
    augment = ("flip", "crop")
    config = Config(
        data=DataConfig(name="tiny_imagenet:~/data/tiny-imagenet-200"),
        model=ModelConfig(name="resnet18_imagenet", dtype="bfloat16", input_size=224),
        train=TrainConfig(epochs=150, lr=0.1, batch_size=64, augment=augment),
        unlearn=UnlearnConfig(
            forget=(126,), method="delete", epochs=20, lr=5e-5, batch_size=64, batch_norm="frozen", augment=augment
        ),
    )
    config = as_published(config) if name == "paper" else config
    return shorten(config) if is_quick else config
