"""Forget a person: pretrain on many drawn faces, teach ten others, forget one, on a CPU.

    delete-jax --config=configs/faces.py --workdir=runs/faces

The drawn faces are synthetic: they show that the flow works. Photographs with the protocol of the DELETE paper (arXiv
2503.23751), for a GPU or TPU; VGGFace2 must be got from its authors:

    delete-jax --config=faces:vggface2 --config.data.name=faces:PATH --workdir=runs/vggface2

Published (the paper's code, shaaaaron/DELETE, config/vggface_resnet18.yaml): torchvision's ResNet-18 at 224 pixels, 80 epochs on
100 people at rate 0.01, 40 on ten others at 0.01, batch 64, decay 5e-4, mirrored at random; 400 images of each person to train on
and 100 to test; forgetting the first of a fixed order, class 4, in 20 epochs at rate 5e-5. That order is of the people
as its script found them; here a class number means another person. What else differs here: the middle square of a photograph
is taken where the code stretches it, 10 % of the training images are held out, the rates fall along a cosine (the code's: by ten
every 40 epochs, constant while teaching), the network computes in bfloat16, pixels are normalised by the data's own statistics, and
ten more people are kept unseen to measure verification. 120 people with 500 images are 9 GB of memory at 224 pixels.

`vggface2_paper` takes the code's settings themselves: its schedules, float32, one image of each person held out. What still differs: the
middle square, the order of the people, the last network in place of the best, and the statistics of the pixels. The code's unlearning rate
is its common default for all methods.
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
from delete_jax.tasks import Faces


def drawn() -> Config:
    return Config(
        task=Faces(pretrain=40, people=10, unseen=10, train_images=60, test_images=20, epochs=8, lr=0.02),
        data=DataConfig(name="faces:drawn", size=32),
        model=ModelConfig(name="resnet_small"),
        train=TrainConfig(epochs=8, lr=0.1, batch_size=64),
        # Batches of one person only would drag the running statistics along.
        unlearn=UnlearnConfig(forget=(3,), method="delete", epochs=20, lr=1e-4, batch_size=16, batch_norm="frozen"),
    )


def vggface2() -> Config:
    return Config(
        task=Faces(pretrain=100, people=10, unseen=10, train_images=400, test_images=100, epochs=40, lr=0.01),
        data=DataConfig(name="faces:~/data/vggface2/train", size=224),
        model=ModelConfig(name="resnet18_imagenet", dtype="bfloat16"),
        train=TrainConfig(epochs=80, lr=0.01, batch_size=64, augment=("flip",)),
        unlearn=UnlearnConfig(
            forget=(4,), method="delete", batch_norm="train", epochs=20, lr=5e-5, batch_size=64, augment=("flip",)
        ),
    )


VARIANTS = {"drawn": drawn, "vggface2": vggface2, "vggface2_paper": lambda: as_published(vggface2())}


def get_config(arg: str = "") -> Config:
    name, is_quick = choose_variant("configs/faces.py", arg, VARIANTS)
    config = VARIANTS[name]()
    return shorten(config) if is_quick else config
