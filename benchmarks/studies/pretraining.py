"""How an original or a reference is trained from scratch. Nothing else in this folder trains without unlearning."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

import delete_jax as dj
from delete_jax.identity import Identified, digest
from delete_jax.loop import fit
from delete_jax.methods import REMAIN, finetune
from delete_jax.model import Variables
from delete_jax.network_check import as_is
from delete_jax.parallel import make_trainer
from delete_jax.step import init_state, sgd
from delete_jax.streams import split_streams


def pretrain(
    model: dj.Model,
    variables: Variables,
    images: np.ndarray,
    labels: np.ndarray,
    num_classes: int,
    *,
    epochs: int,
    lr: float,
    batch_size: int = 128,
    micro_batch: int | None = None,
    momentum: float = 0.9,
    weight_decay: float = 5e-4,
    seed: int = 0,
    preprocess: Callable[[jax.Array], jax.Array] | None = None,
    augment: Callable[..., Any] | None = None,
    parallel: str = "auto",
    resident: int | str = "auto",
    log: dj.Log | None = None,
    store: dj.Store | None = None,
    progress: dj.Progress | None = None,
) -> dj.Result:
    """Trains a network by SGD with a rate that falls along a cosine, or continues where `store` says that it was interrupted.

    Args:
      model, variables: the network, and where it starts.
      images, labels: its samples, uint8 or float32 `[n, h, w, c]`, and int32 `[n]`, or `[n, h, w]` for label maps.
      epochs, lr, batch_size, micro_batch, momentum, weight_decay, augment: as in `config.train`; `augment` is a function.
      seed: of the order of samples, augmentation and dropout.
      preprocess, parallel, resident, log, store, progress: as for `delete_jax.unlearn`.

    Raises:
      IdentityError: the store holds a network that was trained otherwise.
      NonFiniteError: it diverged.
    """
    streams = split_streams(images, labels, (), num_classes, [REMAIN])
    settings = {
        "epochs": epochs, "lr": lr, "batch_size": batch_size, "micro_batch": micro_batch, "momentum": momentum,
        "weight_decay": weight_decay, "seed": seed,
    }  # fmt: skip
    if store is not None:
        samples = {"image": images, "label": labels}
        store = Identified(store, {"start": digest(variables), "samples": digest(samples), "settings": settings})
    tx = sgd(momentum, weight_decay, cosine_steps=-(-len(streams[REMAIN]["label"]) // batch_size) * epochs)
    parts = batch_size // (micro_batch or batch_size)
    trainer = make_trainer(model, finetune(), tx, preprocess or as_is, augment, "train", parallel, parts)
    found = fit(
        trainer, init_state(variables, tx), None, streams, lr=lr, seed=seed, epochs=epochs, batch_size=batch_size,
        resident=resident, log=log, store=store, progress=progress,
    )  # fmt: skip
    return found._replace(variables=jax.device_get(found.variables))
