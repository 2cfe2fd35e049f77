"""Forget 60 of 287 training images of a network trained on scikit-learn's digits; their classes stay.

    delete-jax --config=configs/samples.py --workdir=runs/samples

With so few training images the network remembers single ones: a network that never saw the 60 recognises 92 % of them. About a
minute on two CPU cores. docs/tasks/samples.md says which methods this is for, and what they reach.

Name other samples by their positions in the training split, without the samples that are held out for validation:
`--config.task.indices=3,17,120`; images of a folder by their names, `--config.task.files=list.txt`; or in a config file of your own, from a file of numbers:
`Instances(indices=tuple(np.loadtxt("forget.txt", int).tolist()))`.
"""

import numpy as np

from delete_jax.config import Config, DataConfig, ModelConfig, TrainConfig, UnlearnConfig, choose_variant, shorten
from delete_jax.tasks import Instances


def get_config(arg: str = "") -> Config:
    _, is_quick = choose_variant("configs/samples.py", arg, ["digits"])
    some = np.random.default_rng(0).choice(250, 60, replace=False)
    config = Config(
        task=Instances(indices=tuple(sorted(some.tolist()))),
        data=DataConfig(name="digits", validation=0.8),
        model=ModelConfig(name="resnet_tiny"),
        train=TrainConfig(epochs=40, lr=0.1, batch_size=64),
        unlearn=UnlearnConfig(
            method="delete", hyperparameters={"remain": True}, batch_norm="train", epochs=5, lr=3e-3, batch_size=32
        ),
    )
    return shorten(config) if is_quick else config
