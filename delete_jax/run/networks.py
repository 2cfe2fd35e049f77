"""Networks from elsewhere: an earlier run's, a converted one, or PyTorch's weights in a file."""

from __future__ import annotations

import json
import os.path
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
from etils import epath

from delete_jax import methods, models
from delete_jax.checkpoint import CheckpointError, Checkpoints, is_earlier
from delete_jax.data.images import MAX_SIDE
from delete_jax.earlier import Answered
from delete_jax.identity import digest
from delete_jax.methods import METHODS
from delete_jax.model import Variables
from delete_jax.models import torch_names
from delete_jax.models.torch_files import SUFFIXES, is_weights
from delete_jax.run.folder import CONFIG, has_ended, variables_of
from delete_jax.run.paths import expanded
from delete_jax.tasks.base import UNLEARNED
from delete_jax.trainable import whole

TEACHER, BEFORE_FINISH = "teacher", "before_finish"
"""The stage that a run, and a converted network, is known by; and the stage that a finish follows, where a run has one."""


class Loaded(NamedTuple):
    """A network from elsewhere.

    variables: the network's.
    description: what is said of it (`tasks.Run.description`). PyTorch's weights leave open what they do not tell: names of
      classes and sides of images are None in their lists, `mean` and `std` as a whole.
    source: where it was.
    identity: what it was made from; empty where nobody knows.
    is_earlier: an earlier version wrote it, whose digest covers the variables alone.
    requests: those that the network has answered (`earlier.Answered`), as far as the place says so.
    remaining: digests of the splits that it was made with, without the classes of these requests; empty where nobody knows.
    """

    variables: Variables
    description: dict[str, Any]
    source: str
    identity: dict[str, Any]
    is_earlier: bool = False
    requests: tuple[Answered, ...] = ()
    remaining: Mapping[str, str] = {}


def load_teacher(where: str, name: str) -> Loaded:
    """Loads the network that `--config.teacher` names: in a run's folder, in a folder `checkpoints/STAGE` of it, or in a file. Of a
    run's folder it is the original network, also where that run took it from elsewhere.

    Args:
      where: the folder, or a file of PyTorch's weights.
      name: of the architecture of such weights, in `models.NETWORKS`.

    Raises:
      ValueError: there is none, or none that is whole and finished; weights of another network.
    """
    try:
        return _load(where, name)
    except torch_names.OtherNetworkError as error:
        hint = f": give --config.model.name={error.fitting[0]}" if error.fitting else ""
        raise ValueError(f"--config.teacher={error}{hint}") from error
    except ValueError as error:
        raise ValueError(f"--config.teacher={error}") from error


def _load(where: str, name: str) -> Loaded:
    path = storage_path(where)
    if is_weights(path):
        return from_weights(name, where)
    if path.is_file():
        raise ValueError(
            f"{path} is a file, and no file of weights: name the folder of an earlier run, or a file whose name ends in one of "
            f"{', '.join(SUFFIXES)}"
        )
    if not path.is_dir():
        raise ValueError(
            f"{path}: no such folder; name the folder of an earlier run, or a file of weights ({', '.join(SUFFIXES)})"
        )
    stage = path / "checkpoints" / TEACHER
    if not stage.is_dir() and stage_names(path):
        return _load_given(path, name)
    return load_stage(stage if stage.is_dir() else path, where)


def _load_given(run: epath.Path, name: str) -> Loaded:
    """The original network of a run that did not train it: from where that run took it.

    Raises:
      CheckpointError: nothing says where that was, nothing is there any more, or another network is.
    """
    stage = run / "checkpoints" / UNLEARNED
    instead = f"to go on from its unlearned network, name {stage}" if stage.is_dir() else "name another network"
    try:
        source = json.loads((run / CONFIG).read_text())["teacher"]
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        raise CheckpointError(f"{run}: nothing there says where its original network is; {instead}") from None
    if source is None:
        raise CheckpointError(f"{run}: its original network is not trained yet; finish that run first")
    try:
        loaded = _load(str(source), name)
    except (ValueError, RecursionError) as error:
        reason = "two runs that name each other" if isinstance(error, RecursionError) else error
        raise CheckpointError(f"{run}: it took its original network from elsewhere ({reason}); {instead}") from None
    made = [there for last in (BEFORE_FINISH, UNLEARNED) if (there := run / "checkpoints" / last).is_dir()]
    saved = Checkpoints(made[0]).restore() if made else None  # the first was made from the original itself
    original = saved[1].get("identity", {}).get("original") if saved else None
    if original not in (None, digest(loaded.variables)):
        raise CheckpointError(f"{run}: it took its original network from {source}, where another one is now; {instead}")
    return loaded


def storage_path(where: str) -> epath.Path:
    """Returns a path on this machine or on storage that epath knows, "~" being the home folder.

    Raises:
      ValueError: nothing here reads that storage, or there is no such home folder.
    """
    try:
        path = epath.Path(where if "://" in where else expanded(where))
        path.is_dir()
    except (ImportError, KeyError) as error:  # nothing is installed for that storage, or epath does not know it
        reason = error if isinstance(error, ImportError) else "it is of an unknown kind"
        raise ValueError(f"{where}: that storage cannot be read here ({reason})") from None
    return path


def stage_names(run: epath.Path) -> list[str]:
    """Lists the stages that a run's folder has."""
    there = run / "checkpoints"
    return sorted(path.name for path in there.iterdir() if path.is_dir()) if there.is_dir() else []


def load_stage(directory: epath.Path, source: str) -> Loaded:
    """Loads the network of a finished stage, whose checkpoints are in that directory.

    Raises:
      CheckpointError: there is none that is whole and finished.
    """
    try:
        saved = Checkpoints(directory).restore()
    except CheckpointError as error:
        raise CheckpointError(f"{source}: {error}; name another run") from error
    if saved is None or "network" not in saved[1]:
        raise CheckpointError(f"{source}: no checkpoint of a run there; name the folder of a finished run")
    tree, meta = saved
    if not has_ended(meta):
        raise CheckpointError(f"{source}: its training was interrupted; finish that run first")
    identity = meta.get("identity", {})
    variables = _unwrapped(whole(variables_of(tree), _trainable(identity)), identity.get("method", {}))
    return Loaded(
        variables,
        meta["network"],
        source,
        identity,
        is_earlier(tree, meta),
        _answered(meta, identity),
        meta.get("remaining", {}),
    )


def _trainable(identity: Mapping[str, Any]) -> str | None:
    """What was trained of the network (`Options.trainable`)."""
    settings = identity.get("settings")
    return settings.get("trainable") if isinstance(settings, Mapping) else None


def _answered(meta: Mapping[str, Any], identity: Mapping[str, Any]) -> tuple[Answered, ...]:
    """What a stage's network has answered. A version that did not keep it says what it was made from."""
    if "requests" in meta:
        return tuple(meta["requests"])
    if not identity.get("forget"):
        return ()
    mode = identity.get("settings", {}).get("batch_norm", "frozen")
    return ({"forget": identity["forget"], "method": identity.get("method", {}).get("name"), "batch_norm": mode},)


def _unwrapped(variables: Variables, method: Mapping[str, Any]) -> Variables:
    """The network without what its method added to it while it trained (`Method.wrap`); a run saves both, to resume."""
    if method.get("name") not in METHODS:
        return variables
    settings = {name: value for name, value in method.items() if name != "name" and not isinstance(value, dict)}
    return methods.create(method["name"], **settings).unwrap(variables)


def from_weights(name: str, source: str, **told: Any) -> Loaded:
    """Loads the network in a file of PyTorch's weights.

    Args:
      name: of the architecture, in `models.NETWORKS`.
      source: the file, or what else `models.load_torch` takes by its path.
      told: of class_names, mean, std and image_size, what the user says (see `models.load_torch`).

    Raises:
      ValueError: there is no such file, or its weights are another network's.
    """
    if "://" in source:
        raise ValueError(f"{source}: weights are read from a local or mounted disk: copy the file there")
    path = Path(os.path.expanduser(source))  # which leaves a "~" alone that is nobody's home
    _check_known(name, path)
    variables, info = models.load_torch(name, path, **told)
    if (info.mean is None) != (info.std is None):
        raise ValueError(f"{path}: mean is {info.mean} and std {info.std}: give both or neither")
    if info.image_size is not None and info.image_size > MAX_SIDE:
        raise ValueError(f"{path}: image_size={info.image_size}: images have at most {MAX_SIDE} pixels per side")
    stem = torch_names.architecture(models.create(name, info.num_classes)).stem
    # ImageNet's 224 pixels are a habit of most networks, and a must where positions are embedded.
    is_bound = "image_size" in info.metadata or "pos_embed" in variables["params"]
    side = info.image_size if is_bound else None
    description = {
        "name": name,
        "class_names": list(info.class_names or [None] * info.num_classes),
        "image_shape": [side, side, variables["params"][stem]["kernel"].shape[-2]],
        "mean": info.mean and list(info.mean),
        "std": info.std and list(info.std),
        "torch": info.to_json(),
    }
    return Loaded(jax.device_get(variables), description, source, {}, requests=info.erased)


def _check_known(name: str, path: Path) -> None:
    """Raises ValueError unless PyTorch weights are known for that network; names those of its kind for which they are."""

    def is_known(other: str) -> bool:
        return type(models.create(other, 2)) in torch_names.ARCHITECTURES

    if not is_known(name):
        answers = models.NETWORKS[name].answers
        fitting = [other for other, row in models.NETWORKS.items() if row.answers == answers and is_known(other)]
        raise ValueError(f"{path}: no names of PyTorch weights are known for {name}: only for {', '.join(fitting)}")
