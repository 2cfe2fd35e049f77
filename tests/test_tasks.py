"""The contract of every task; one that is added to the table is tested here without another line, if it loads any data."""

import pytest

from delete_jax.config import Config, DataConfig, ModelConfig, TrainConfig, UnlearnConfig
from delete_jax.tasks import TASKS, Faces
from delete_jax.testing import check_task
from delete_jax.testing.task import NAME
from tests import tiny

OF_ITS_OWN = {
    "faces": Config(
        task=Faces(pretrain=3, people=3, unseen=2, train_images=6, test_images=2, epochs=1),
        data=DataConfig(name="faces:drawn", size=16),
        model=ModelConfig(name=NAME),
        train=TrainConfig(epochs=1, batch_size=8),
        unlearn=UnlearnConfig(forget=(2,), epochs=1, batch_size=8, **tiny.PAPER),
        parallel="jit",
    )
}


SELDOM = ("segmentation", "classification", "faces")  # many other tests run the one, and the other takes long


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow if name in SELDOM else ()) for name in TASKS]
)
def test_the_contract(name):
    check_task(TASKS[name], OF_ITS_OWN.get(name))
