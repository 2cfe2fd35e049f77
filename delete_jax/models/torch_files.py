"""Reads PyTorch weights from files; without torch where that is possible."""

from __future__ import annotations

import os
import pathlib
import re
from collections.abc import Mapping
from typing import Any

from delete_jax.models import torch_archives
from delete_jax.models.state_dicts import Found, state_dict
from delete_jax.models.torch_info import no_weights, parse
from delete_jax.models.torch_names import shown

SAFETENSORS, INDEX = ".safetensors", ".index.json"
SUFFIXES = (SAFETENSORS, *torch_archives.SUFFIXES, INDEX)
DTYPES = {"F64", "F32", "F16", "BF16", "I64", "I32", "I16", "I8", "U64", "U32", "U16", "U8", "BOOL"}
"""Those of safetensors that NumPy has."""
SHARD = re.compile(r"(.+)-\d{5}-of-(\d{5})(\.\w+)")
MOST_BYTES = 2**26
"""Of an index, which has a line for each tensor."""
HEAD = 512


def is_weights(path: Any) -> bool:
    """Whether that is a file of weights by its name, or a folder with an index of such files."""
    return path.name.lower().endswith(SUFFIXES) if not path.is_dir() else _index(path) is not None


def from_file(path: pathlib.Path) -> tuple[Found, dict[str, str]]:
    """Reads the state dict in a file, and the file's metadata.

    Args:
      path: a file, an index of several (`model.safetensors.index.json`), or a folder with one index.

    Raises:
      ValueError: there is no such file, or none that can be read.
    """
    if os.path.isdir(path):
        if (index := _index(path)) is None:
            raise ValueError(f"a folder without one index of weights, *{INDEX}: name a file")
        path = pathlib.Path(index)
    if not os.path.isfile(path):
        raise ValueError("there is no such file")
    if not is_weights(path):
        raise ValueError(
            f"weights come as {SAFETENSORS}, {', '.join(torch_archives.SUFFIXES[:-1])} or {torch_archives.SUFFIXES[-1]}, "
            f"not as {path.suffix or 'a file without suffix'}"
        )
    if path.name.endswith(INDEX):
        return _from_index(path)
    shard = SHARD.fullmatch(path.name)
    if shard and int(shard[2]) > 1:
        raise ValueError(f"this is one of {int(shard[2])} shards: name their index, {shard[1]}{shard[3]}{INDEX}")
    return _from_one(path)


def safetensors_header(path: pathlib.Path) -> tuple[dict[str, Any], int]:
    """Reads the header of a whole safetensors file: its texts in their order, and how many bytes it takes."""
    with path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
        return parse(file.read(size), "its header"), size


def _from_one(path: pathlib.Path) -> tuple[Found, dict[str, str]]:
    is_safe = path.suffix.lower() == SAFETENSORS
    if other := _otherwise(path, is_safe):
        raise ValueError(other)
    if is_safe:
        return _from_safetensors(path)
    loaded = torch_archives.load(path)
    if not isinstance(loaded, Mapping):
        raise ValueError(f"it has a {type(loaded).__name__} and no state dict")
    return state_dict(loaded), {"format": "pt"} | torch_archives.metadata(loaded)


def _from_safetensors(path: pathlib.Path) -> tuple[Found, dict[str, str]]:
    from safetensors import safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            header, _ = safetensors_header(path)
            dtypes = {key: said["dtype"] for key, said in header.items() if key != "__metadata__"}
            wrong = [key for key, dtype in dtypes.items() if dtype not in DTYPES]
            tensors = {} if wrong else {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except Exception as error:  # it raises several kinds
        raise ValueError(f"no safetensors file that can be read: {' '.join(str(error).split())[:200]}") from None
    if wrong:
        raise ValueError(no_weights(wrong[0], dtypes[wrong[0]]))
    return Found(tensors), header.get("__metadata__") or {}


def _index(folder: Any) -> Any:
    """The only index in a folder, or None."""
    found = [entry for entry in folder.iterdir() if entry.name.endswith(INDEX)]
    return found[0] if len(found) == 1 else None


def _from_index(path: pathlib.Path) -> tuple[Found, dict[str, str]]:
    """The tensors of all shards that an index names, which must lie beside it or below."""
    with path.open("rb") as file:
        text = file.read(MOST_BYTES + 1)
    said = parse(text, "the index") if len(text) <= MOST_BYTES else None
    places = said.get("weight_map") if isinstance(said, dict) else None
    if not isinstance(places, dict) or not places or not all(isinstance(name, str) for name in places.values()):
        raise ValueError('no index of weights: it must have a "weight_map" of keys and names of files')
    tensors: dict[str, Any] = {}
    metadata: dict[str, str] = {}
    for name in dict.fromkeys(places.values()):
        if not re.fullmatch(r"(?:(?!\.\.?/)[^/\\:\0]+/)*(?!\.\.?$)[^/\\:\0]+", name) or name.lower().endswith(INDEX):
            raise ValueError(f"its shard {name[:80]!r} must be a file in the folder of the index")
        shard = path.parent / name
        try:
            if not os.path.isfile(shard):
                raise ValueError("there is no such file")
            if not is_weights(shard):
                raise ValueError(f"it must be one of {', '.join(SUFFIXES[:-1])}")
            found, more = _from_one(shard)
        except ValueError as error:
            raise ValueError(f"its shard {name}: {error}") from None
        wanted = [key for key, place in places.items() if place == name]
        if missing := [key for key in wanted if key not in found.tensors]:
            raise ValueError(f"its shard {name} lacks {shown(missing)}")
        if surplus := [str(key) for key in found.tensors if places.get(key) != name]:
            raise ValueError(f"its shard {name} has {shown(surplus)}, which the index does not have there")
        tensors |= found.tensors
        metadata |= more
    return Found(tensors), metadata


def _otherwise(path: pathlib.Path, is_safe: bool) -> str | None:
    """What a file is that is named otherwise, and what to do."""
    with path.open("rb") as file:
        head = file.read(HEAD)
    if head.startswith(b"version https://git-lfs"):
        return "this is a pointer of Git LFS and not the file with the weights: get that with git lfs pull"
    if head.lstrip().startswith(b"<"):
        return "this is a page (HTML or XML) and no file of weights: download the file itself"
    if head[8:9] == b"{" and not is_safe:
        return f"this is a safetensors file: name it {SAFETENSORS}"
    if is_safe and head.startswith((torch_archives.ZIP, b"\x80")) and head[8:9] != b"{":
        return "this is a file of torch.save: name it .pth"
    for start, mark, name in (
        (0, b"\x1f\x8b", "packed by gzip"),
        (257, b"ustar", "a tar archive"),
        (0, b"\x89HDF", "an HDF5 file"),
    ):
        if head[start:].startswith(mark):
            return f"this is {name} and no file of weights: unpack or convert it first"
    if head and head[8:9] != b"{" and _is_text(head):
        return f"this is a text file and no file of weights: {head[:40].decode(errors='replace').splitlines()[0]!r}"
    return None


def _is_text(head: bytes) -> bool:
    try:
        text = head.decode()
    except UnicodeDecodeError as error:
        if error.start < len(head) - 3:
            return False
        text = head[: error.start].decode()  # the last character is cut
    return all(letter.isprintable() or letter in "\t\r\n" for letter in text)
