"""Erase a class of Pascal VOC 2012 from a segmentation network, DeepLabV3+, as in the DELETE paper; for a GPU or TPU.

    delete-jax --config=configs/voc.py --config.data.name=voc:PATH --workdir=runs/voc

Data: the folder VOCdevkit/VOC2012; its val split is the test split here.

Published (arXiv 2503.23751): the experiment, but neither its code nor a config of it, so these settings are not the paper's: a ResNet-50 at
output stride 16, training by SGD for 100 epochs at rate 0.01, batch 16, decay 1e-4, images mirrored, scaled by 0.5 to 2 and cropped, as is
common for this network. It is trained from scratch on the 1464 images of the train split, without a network pretrained on ImageNet, so
a lower mIoU than in the literature must be expected. With --config.model.name=deeplabv3_resnet50 --config.teacher=WEIGHTS it starts from torchvision's
weights for VOC instead (docs/tasks/segmentation.md).
"""

from delete_jax.config import Config, DataConfig, ModelConfig, TrainConfig, UnlearnConfig, choose_variant, shorten
from delete_jax.tasks import Segmentation

VARIANTS = ("deeplab_resnet50",)


def get_config(arg: str = "") -> Config:
    _, is_quick = choose_variant("configs/voc.py", arg, VARIANTS)
    augment = ("flip", "scale", "crop")
    config = Config(
        task=Segmentation(),
        data=DataConfig(name="voc:~/data/VOCdevkit/VOC2012", size=512),
        model=ModelConfig(name="deeplab_resnet50", dtype="bfloat16"),
        train=TrainConfig(epochs=100, lr=0.01, batch_size=16, weight_decay=1e-4, augment=augment),
        unlearn=UnlearnConfig(
            forget=("cat",), method="delete", batch_norm="train", epochs=20, lr=1e-3, batch_size=16, augment=augment
        ),
    )
    return shorten(config) if is_quick else config
