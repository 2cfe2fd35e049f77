"""Tiny networks and data for tests."""

from __future__ import annotations

import functools

import numpy as np

from delete_jax import data, models
from delete_jax.data import Split
from delete_jax.data.dataset import Dataset, pixel_statistics
from delete_jax.models import Network, ResNet
from delete_jax.testing.samples import NUM_CLASSES, Net, Segmenter, label_maps, network, samples

__all__ = ["NUM_CLASSES", "PAPER", "Net", "Segmenter", "label_maps", "network", "samples", "small_runs"]

PAPER = {"method": "delete", "batch_norm": "train", "lr": 1e-3}
"""The settings of the DELETE paper: one training, at a rate. What the calls of many tests are made with, which are about something else."""


def small_runs(monkeypatch) -> None:
    """Runs of the command in this process load four classes of tiny images, and "resnet_tiny" has one narrow stage."""

    def split(n, seed):
        images, labels = samples(n, seed)
        return Split((60 * images + 100).clip(0, 255).astype(np.uint8), labels)

    net = functools.partial(ResNet, stages=(1,), features=(8,))
    monkeypatch.setitem(models.NETWORKS, "resnet_tiny", Network(net, "fc", layers=("layer1",)))
    train = split(64, 0)
    dataset = Dataset("corners", train, split(16, 1), split(32, 2), tuple("abcd"), *pixel_statistics(train.images))
    monkeypatch.setattr(data, "load", lambda name, **_: dataset)
