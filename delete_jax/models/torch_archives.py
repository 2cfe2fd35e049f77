"""Files of `torch.save`: read as weights only, after a check that they are whole, and written."""

from __future__ import annotations

import io
import logging
import pathlib
import pickle
import re
import zipfile
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from typing import Any, BinaryIO

import numpy as np

SUFFIXES = (".pth", ".pt", ".tar", ".ckpt", ".bin")
WRITTEN = (".pth", ".pt")
ZIP = b"PK\x03\x04"
SAFE = (2, 10)
"""The first version of torch without CVE-2026-24747: until then, a file that is read as weights only may damage memory."""
UNPACKED = 16
"""How many times as large as the file its content may be."""
CHUNK = 2**20
BYTES = {
    **dict.fromkeys(("DoubleStorage", "LongStorage", "ComplexFloatStorage"), 8),
    **dict.fromkeys(("FloatStorage", "IntStorage", "QInt32Storage"), 4),
    **dict.fromkeys(("HalfStorage", "BFloat16Storage", "ShortStorage"), 2),
    "ComplexDoubleStorage": 16,
}
"""Of a number in torch's storages; in all others it is one."""

logger = logging.getLogger(__name__)


def load(path: pathlib.Path) -> Any:
    """Loads a file of `torch.save`, with its tensors on the CPU.

    torch looks at neither the checksums nor the lengths of a file's records: with one that is cut, it returns what lies in memory. So
    both are checked here. Files of torch before 1.6 have no checksums.

    Raises:
      ValueError: torch is missing, or the file is damaged, has other objects than weights, or unpacks to far more than its size.
    """
    torch = _torch()
    version = tuple(int(part) for part in re.findall(r"\d+", torch.__version__)[:2])
    if version < SAFE:
        logger.warning(
            "torch %s reads %s: until %d.%d, a file made for that can damage memory (CVE-2026-24747); update torch, or use "
            ".safetensors",
            torch.__version__,
            path,
            *SAFE,
        )
    with path.open("rb") as file:
        is_zip = file.read(len(ZIP)) == ZIP
    is_whole = not is_zip or _check_records(path)
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # of many kinds
        raise ValueError(_why(error)) from None
    if not is_whole:
        raise ValueError("the file is damaged: its list of tensors cannot be read; get it again")
    needed, size = sum(_tensors(loaded)), path.stat().st_size
    if needed > UNPACKED * size:
        raise ValueError(
            f"its tensors repeat their values: they need {needed} bytes, and the file has {size}: save copies"
        )
    return loaded


def metadata(loaded: Any) -> dict[str, str]:
    """Returns the texts that `write` left in a state dict, as a .safetensors file has them; none in what others wrote."""
    found = getattr(loaded, "metadata", None)
    is_text = isinstance(found, dict) and all(isinstance(part, str) for pair in found.items() for part in pair)
    return found if is_text and found is not None else {}


def write(tensors: Mapping[str, np.ndarray], texts: Mapping[str, str], file: BinaryIO) -> None:
    """Writes a state dict as `torch.save` does, with texts as its attribute `metadata`: PyTorch loads it as any other.

    Raises:
      ValueError: torch is missing.
      OSError: the file cannot be written.
    """
    torch = _torch()
    state: OrderedDict[str, Any] = OrderedDict()  # the only kind with attributes that torch reads as weights only
    for key, value in tensors.items():
        content = np.frombuffer(value.tobytes(), np.uint8).copy()  # torch reads no dtypes of ml_dtypes
        state[key] = torch.from_numpy(content).view(getattr(torch, value.dtype.name)).reshape(value.shape)
    state.metadata = dict(texts)  # type: ignore[attr-defined]
    try:
        torch.save(state, file)
    except RuntimeError as error:  # of the disk
        raise OSError(f"the file cannot be written: {_line(error)}") from error


def _torch() -> Any:
    try:
        import torch
    except ImportError:
        raise ValueError(
            "a .pth file needs torch: pip install 'delete_jax[torch]', or convert it to .safetensors where torch is"
        ) from None
    return torch


def _check_records(path: pathlib.Path) -> bool:
    """Reads all records of a zip file; False where no list says how long they must be.

    Raises:
      ValueError: one is not what its checksum says, or shorter than the numbers that are read from it.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            listed = archive.infolist()
            lengths = {info.filename: info.file_size for info in listed}
            if len(lengths) < len(listed):
                raise zipfile.BadZipFile("two records have one name")
            size, unpacked = path.stat().st_size, sum(lengths.values())
            if unpacked > UNPACKED * size:
                raise zipfile.BadZipFile(f"{size} bytes would unpack to {unpacked}")
            for info in listed:
                with archive.open(info) as record:
                    while record.read(CHUNK):
                        pass
            lists = [name for name in lengths if name.partition("/")[2] == "data.pkl"]
            storages = [(name.partition("/")[0], _Storages(io.BytesIO(archive.read(name)))) for name in lists]
    except Exception as error:  # zipfile, zlib and struct raise their own kinds
        raise ValueError(f"the file is damaged: {_line(error)}; get it again") from None
    for root, wanted in storages:
        try:
            wanted.load()
        except Exception:  # torch says why, as far as it knows
            return False
        for key, needed in wanted.lengths.items():
            if (length := lengths.get(f"{root}/data/{key}", 0)) < needed:
                raise ValueError(f"the file is damaged: {root}/data/{key} has {length} bytes of {needed}; get it again")
    return True


class _Inert:
    """Stands for whatever a pickle names, and does nothing."""

    def __init__(self, *arguments: Any):
        pass

    def ignore(self, *arguments: Any) -> None:
        pass

    __setitem__ = __setstate__ = append = extend = add = update = ignore


class _Storages(pickle.Unpickler):
    """Reads how long the records behind a pickle's tensors must be; nothing that it names is imported or called."""

    def __init__(self, file: io.BytesIO):
        super().__init__(file, encoding="utf-8")
        self.lengths: dict[str, int] = {}

    def find_class(self, module: str, name: str) -> Any:
        return type(name, (_Inert,), {})

    def persistent_load(self, pid: Any) -> Any:
        _, kind, key, _, numel = pid
        self.lengths[str(key)] = int(numel) * BYTES.get(kind.__name__, 1)
        return _Inert()


def _tensors(loaded: Any, depth: int = 8) -> Iterator[int]:
    """The bytes of each dense tensor in nested dicts and lists."""
    if hasattr(loaded, "numel"):
        if str(loaded.layout) == "torch.strided" and not loaded.is_meta:
            yield loaded.numel() * loaded.element_size()
    elif isinstance(loaded, (Mapping, list, tuple)) and depth:
        for part in loaded.values() if isinstance(loaded, Mapping) else loaded:
            yield from _tensors(part, depth - 1)


def _why(error: Exception) -> str:
    """Why torch does not read a file, in one line."""
    text = str(error)
    if isinstance(error, pickle.UnpicklingError):
        wanted = re.search(r"GLOBAL ([\w.]+)", text)
        if wanted:
            return (
                f"only weights are loaded, because a pickle may run code, and this one asks for {wanted[1]}: save the "
                "state_dict() alone"
            )
        text = text.rpartition("WeightsUnpickler error: ")[2] or text
    return f"torch cannot read it, for it is damaged or no file of torch.save: {type(error).__name__}: {_line(text)}"


def _line(error: Any) -> str:
    return " ".join(str(error).strip().partition("\n")[0].split())[:200]
