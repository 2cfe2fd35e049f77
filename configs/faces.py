"""Forget a person: pretrain on many drawn faces, teach ten others, forget one, on a CPU.

    delete-jax --config=configs/faces.py --workdir=runs/faces

The faces are synthetic: they show that the flow works. Photographs in folders, such as VGGFace2's, with the paper's protocol:

    delete-jax --config=configs/faces.py --config.data.name=faces:PATH --config.data.size=224 --config.model.name=resnet18 \
        --config.task.pretrain=100 --config.task.train_images=400 --config.task.test_images=100 --workdir=runs/vggface2
"""

from delete_jax.config import Config, DataConfig, ModelConfig, TrainConfig, UnlearnConfig
from delete_jax.tasks import Faces


def get_config(arg: str = "") -> Config:
    config = Config(
        task=Faces(pretrain=40, people=10, unseen=10, train_images=60, test_images=20, epochs=8, lr=0.02),
        data=DataConfig(name="faces:drawn", size=32),
        model=ModelConfig(name="resnet_small"),
        train=TrainConfig(epochs=8, lr=0.1, batch_size=64),
        # Batches of one person only would drag the running statistics along.
        unlearn=UnlearnConfig(forget=(3,), epochs=20, lr=1e-4, batch_size=16, batch_norm="frozen"),
    )
    if arg == "quick":
        config.train.epochs = config.unlearn.epochs = config.task.epochs = 1
        config.retrain = False
    elif arg:
        raise ValueError(f"configs/faces.py:{arg}: the only variant is 'quick'")
    return config
