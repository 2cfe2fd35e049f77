"""Writes a run's network as one file: for PyTorch, or to serve without this package.

delete-jax export RUN OUT [--stage=unlearned --config=FILE]

RUN                         the folder of a run, or what delete-jax convert made
OUT                         a new file, of one of these kinds:
  NAME.safetensors            weights for PyTorch, under the names that they came with; of a network that was trained here in
                              the first layout of its architecture, such as torchvision's
  NAME.pth                    the same as a state dict of torch.save, which needs torch
  NAME.jax                    the network as a function of uint8 images [b, h, w, c], preprocessing included, which returns
                              logits: jax.export.deserialize reads it on CPU, CUDA and TPU
Each says in its metadata which run it is of: the digests of the network and of the run's report, the run's id, and what was forgotten.
delete-jax verify RUN OUT compares it with the run.

--stage=unlearned           which network: a folder of RUN/checkpoints, such as teacher or retrained
--config=FILE               the config file that brings the network, if it is not part of this package
--help                      this text
"""

from __future__ import annotations

import argparse
import dataclasses
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from delete_jax import data, models
from delete_jax.model import Model
from delete_jax.models import TorchInfo, torch_names
from delete_jax.nearest import nearest
from delete_jax.network_check import check_network
from delete_jax.run.arguments import load_config
from delete_jax.run.networks import TEACHER, Loaded, load_stage, stage_names, storage_path
from delete_jax.run.paths import local
from delete_jax.run.provenance import provenance_of
from delete_jax.run.subcommand import Parser
from delete_jax.tasks.base import UNLEARNED
from delete_jax.writing import making


def parse(argv: list[str]) -> argparse.Namespace:
    """Parses the arguments; ValueError for unknown or missing ones."""
    parser = Parser("export")
    parser.add_argument("run", metavar="RUN")
    parser.add_argument("out", metavar="OUT")
    parser.add_argument("--stage", default=UNLEARNED)
    parser.add_argument("--config")
    return parser.parse(argv)


def main(argv: list[str]) -> None:
    """Exports what the arguments name, and says so.

    Raises:
      ValueError: wrong arguments, no finished run, a file that is there; nothing has been written.
    """
    given = parse(argv)
    out = local(given.out)
    if out.suffix not in WRITERS:
        raise ValueError(f"{out}: the name of the file must end in {' or '.join(WRITERS)}")
    if os.path.lexists(out):
        raise ValueError(f"{out} exists: name a new file")
    if given.config:
        load_config(given.config)  # which puts its networks into the table
    loaded = _load(given.run, given.stage)
    provenance = provenance_of(given.run, given.stage, loaded)
    try:
        with making(out.parent):
            WRITERS[out.suffix](loaded, out, provenance)
    except OSError as error:
        if isinstance(error, FileExistsError) and os.path.lexists(out):  # it has come meanwhile
            raise ValueError(f"{out} exists: name a new file") from None
        if error.strerror:  # otherwise it has the path already
            raise ValueError(f"{out} cannot be written ({error.strerror}): name another file, or make room") from error
        raise
    print(f"{given.stage} of {given.run}, {loaded.description['name']}: {out} ({out.stat().st_size / 1e6:.1f} MB)")


def _load(run: str, stage: str) -> Loaded:
    path = storage_path(run)
    if not path.is_dir():
        raise ValueError(f"{run}: no such folder; name the folder of a run")
    there = stage_names(path)
    if not there:
        raise ValueError(f"{run}: no run there (it has no checkpoints); name the folder of a finished run")
    if stage not in there:
        finish = ", or finish that run" if there != [TEACHER] else ""
        raise ValueError(
            f"{run} has no stage {stage!r}{nearest(stage, there)}: give --stage, one of {', '.join(there)}{finish}"
        )
    loaded = load_stage(path / "checkpoints" / stage, f"{run}, stage {stage}")
    if loaded.description["name"] not in models.NETWORKS:
        raise ValueError(
            f"{run}: its network {loaded.description['name']!r} is none of this package: give the config file that brings it, "
            "--config=FILE"
        )
    return loaded


def _save_torch(loaded: Loaded, out: Path, provenance: dict[str, Any] | None) -> None:
    described = loaded.description
    info = TorchInfo.from_json(described["torch"]) if "torch" in described else None
    height, width, _ = described["image_shape"]
    said = {name: described[name] for name in ("class_names", "mean", "std")}
    said["image_size"] = described.get("input_size", height if height == width else None)
    said["erased"] = list(loaded.requests) or None
    if None in described["class_names"]:
        said["class_names"] = None
    known = {} if info is None else _plain(info)
    new = {name: value for name, value in said.items() if value != known.get(name)}  # what the file did not say itself
    module = _module(described)
    try:
        torch_names.architecture(module)
    except ValueError as error:
        raise ValueError(f"{out}: {error}; export it as {models.exported.SUFFIX}") from None
    models.save_torch(module, loaded.variables, out, info, **new, provenance=provenance, replace=False)


def _save_exported(loaded: Loaded, out: Path, provenance: dict[str, Any] | None) -> None:
    described = loaded.description
    for name, option in (("image_shape", "--image_size"), ("mean", "--mean and --std")):
        if described[name] is None or None in described[name]:
            raise ValueError(
                f"{loaded.source}: its {name} is not known: give delete-jax convert {option}, or export what a run made of it"
            )
    model, preprocess = served(described)
    shape = described["image_shape"]
    variables = jax.device_get(loaded.variables)
    check_network(model, variables, np.zeros((1, *shape), np.uint8), preprocess)
    models.save_exported(model, variables, out, shape, preprocess, replace=False, provenance=provenance)


def served(described: dict[str, Any]) -> tuple[Model, Callable]:
    """The network that is served, and what prepares its images."""
    model = models.from_linen(_module(described), models.NETWORKS[described["name"]].classifier)
    return model, data.normalize(described["mean"], described["std"], size=described.get("input_size"))


WRITERS = {".safetensors": _save_torch, ".pth": _save_torch, models.exported.SUFFIX: _save_exported}


def _module(described: dict[str, Any]) -> Any:
    # A run of an earlier version did not say what it computes in.
    return models.create(described["name"], len(described["class_names"]), described.get("dtype", "float32"))


def _plain(info: TorchInfo) -> dict[str, Any]:
    """What PyTorch's weights said, as a description has it."""
    fields = {field.name: getattr(info, field.name) for field in dataclasses.fields(info)}
    return {name: list(value) if isinstance(value, tuple) else value for name, value in fields.items()}
