"""Whether an exported file is of a run: what it says of itself, and what is in it."""

from __future__ import annotations

import importlib.util
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from delete_jax import models
from delete_jax.identity import digest, short
from delete_jax.models import exported, torch_files, torch_info
from delete_jax.models.state_dicts import arrays
from delete_jax.run.export import WRITERS, served
from delete_jax.run.integrity import DIFFERS, HOLDS, UNKNOWN, Finding
from delete_jax.run.networks import Loaded
from delete_jax.run.paths import expanded
from delete_jax.run.provenance import Found, made
from delete_jax.tasks.base import UNLEARNED


def check_kind(name: str) -> Path:
    """Raises ValueError unless that is a file of a kind that `export` writes; returns its path."""
    path = expanded(name)
    if path.suffix not in WRITERS:
        raise ValueError(f"{name}: the name of an exported file ends in {' or '.join(WRITERS)}")
    if not path.is_file():
        raise ValueError(f"{name}: there is no such file")
    return path


def of_exported(name: str, record: Mapping[str, Any], networks: Callable[[str], Found]) -> Finding:
    """Compares an exported file with a run.

    Args:
      name: of the file. record: the report of the run. networks: loads its networks (`provenance.networks_of`).
    """
    path = check_kind(name)
    if path.suffix == ".pth" and importlib.util.find_spec("torch") is None:
        return Finding(UNKNOWN, f"{name}: reading it needs torch: pip install 'delete_jax[torch]'")
    if (network := record["model"]["name"]) not in models.NETWORKS:
        return Finding(UNKNOWN, f"{name}: the network {network!r} is none of this package: give --config=FILE")
    check = _of_function if path.suffix == exported.SUFFIX else _of_tensors
    try:
        return Finding(*check(path, Context(name, record, networks)))
    except ValueError as error:
        return Finding(DIFFERS, f"{name}: {error}")


class Context(NamedTuple):
    """A file and the run that it shall be of (`of_exported`)."""

    name: str
    record: Mapping[str, Any]
    networks: Callable[[str], Found]

    def called(self, said: Mapping[str, Any]) -> str:
        """Finds which network of the run a file says that it is.

        Raises:
          ValueError: it is of another run, or says nothing; the message says which.
        """
        if not said:
            raise ValueError("nothing in it says of which run it is: no run, or an earlier version, wrote it")
        network, networks = said.get("network"), self.record["networks"]
        known = {other.get("digest"): name for name, other in networks.items()}
        wrong = [] if network in known else [f"the report has no network with the digest that it says, {network}"]
        expected = made(self.record, UNLEARNED if said.get("request") else str(said.get("stage")), str(network))
        for key in ("run", "report", "request"):
            if said.get(key) != expected[key]:
                wrong.append(f"its {key} is {_shown(said.get(key))}, not {_shown(expected[key])}")
        if wrong:
            raise ValueError(f"it is not of this run: {'; '.join(wrong)}")
        return known[network]

    def load(self, called: str) -> Loaded | None:
        """Loads that network of the run; None where it is not there, or another one is, which is a finding of its own."""
        try:
            found = self.networks(called)
        except ValueError:
            return None
        return found.loaded if found.digest == self.record["networks"][called]["digest"] else None


def _of_tensors(path: Path, context: Context) -> tuple[str, str]:
    """Whether a file has a network's weights; where these were rounded, as the weights that it was made from are, those of its checkpoint."""
    found, texts = torch_files.from_file(path)
    said: dict[str, Any] = {}
    if "provenance" in texts:
        said = torch_info.checked_provenance(torch_info.parse(texts["provenance"], "its provenance"))
    called, tensors = context.called(said), arrays(found.tensors)
    if (its := digest(tensors)) != said.get("tensors"):
        raise ValueError(f"its weights were changed: they have the digest {its}, and it says {said.get('tensors')}")
    record, what = context.record, f"{context.name}: the {called} network of this run"
    module = models.create(record["model"]["name"], len(record["dataset"]["class_names"]))
    if digest(models.load_torch(module, path)[0]) == said["network"]:
        return HOLDS, f"{what}: its weights have the digest {said['network']}"
    others = f"its weights are not those of the {called} network, though it says so"
    if not any(str(tensor.dtype).endswith("float16") for tensor in tensors.values()):  # bfloat16 among them
        raise ValueError(others)
    if (loaded := context.load(called)) is None:
        return UNKNOWN, f"{what}, as it says: its weights are rounded, and there is no network to compare them with"
    with tempfile.TemporaryDirectory() as again:
        out = Path(again) / path.name
        WRITERS[path.suffix](loaded, out, None)
        if digest(arrays(torch_files.from_file(out)[0].tensors)) != its:
            raise ValueError(others)
    return HOLDS, f"{what}: its weights are those with the digest {said['network']}, rounded"


def _of_function(path: Path, context: Context) -> tuple[str, str]:
    """Whether a function gives a network's logits for random images."""
    function, found = exported.parted(path.read_bytes(), "it was changed")
    called = context.called(said := found or {})
    what = f"{context.name}: the {called} network of this run"
    if (loaded := context.load(called)) is None:
        return UNKNOWN, f"{what}, as it says: there is no network to compare its answers with"
    model, preprocess = served(loaded.description)
    exported.check_function(function, model, loaded.variables, loaded.description["image_shape"], preprocess)
    return HOLDS, f"{what}: it answers as that with the digest {said['network']} does, for random images"


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else short(value)
