"""Whether the files of a run are as it wrote them: by the digest in its report, and by the list of digests beside it."""

from __future__ import annotations

import hashlib
import json
import re
from typing import Any, NamedTuple

from etils import epath

from delete_jax.reports.page import RECORD, SUMS
from delete_jax.reports.record import digest
from delete_jax.run.folder import CONFIG, LOG

BESIDE = (CONFIG, LOG)
"""Files of a run that its report does not hold, and that `SHA256SUMS` lists with it."""
HOLDS, DIFFERS, MISSING, UNKNOWN = "holds", "DIFFERS", "MISSING", "not checked"


class Finding(NamedTuple):
    """What was found of one thing. state: `HOLDS`, `DIFFERS`, `MISSING` or `UNKNOWN`. what: which thing that is, and why."""

    state: str
    what: str


def read_json(path: epath.PathLike) -> Any:
    """Reads a file of JSON, here or on storage that epath knows; None where there is none that can be read."""
    try:
        return json.loads(epath.Path(path).read_text())
    except (OSError, ValueError, RecursionError):
        return None


def of_report(record: Any) -> Finding:
    """Compares a report with the digest that it holds of itself."""
    if not isinstance(record, dict):
        return Finding(DIFFERS, f"{RECORD}: it is damaged, no JSON can be read there")
    said = record.get("digest")
    if not isinstance(said, str):
        return Finding(DIFFERS, f"{RECORD}: it has no digest of itself: it was edited, or an earlier version wrote it")
    found = digest(record)
    if found != said:
        return Finding(DIFFERS, f"{RECORD}: it was edited: its digest is {found}, and it says {said}")
    return Finding(HOLDS, f"{RECORD}: its content has the digest that it says, {said}")


def of_files(where: epath.PathLike) -> list[Finding]:
    """Compares the files of a run with the list of their digests, one finding each."""
    folder = epath.Path(where)
    try:
        lines = (folder / SUMS).read_text().splitlines()
    except (OSError, ValueError):
        return [Finding(MISSING, f"{SUMS}: there is no list of the digests of the run's files that can be read")]
    found = []
    for line in lines:
        match = re.fullmatch(r"([0-9a-f]{64})  ([\w.-]+)", line)
        if match is None:
            found.append(Finding(DIFFERS, f"{SUMS}: a line is damaged: {line!r:.60}"))
            continue
        said, name = match.groups()
        if not (folder / name).is_file():
            found.append(Finding(MISSING, f"{name}: {SUMS} lists it, and there is no such file"))
        elif (its := hashlib.sha256((folder / name).read_bytes()).hexdigest()) != said:
            found.append(Finding(DIFFERS, f"{name}: it was edited: its SHA-256 is {its}, and {SUMS} says {said}"))
        else:
            found.append(Finding(HOLDS, f"{name}: its bytes have the SHA-256 in {SUMS}, {said}"))
    if not any(finding.what.startswith(f"{RECORD}:") for finding in found):
        found.append(Finding(DIFFERS, f"{SUMS}: it does not list {RECORD}"))
    return found


def check_untouched(where: epath.PathLike, record: Any) -> None:
    """Checks a finished run before it is taken as it is. Files that are gone do not matter, and of a run of an earlier version, which
    kept no digests, nothing is known.

    Args:
      where: the folder of the run. record: what its report says (`read_json`).

    Raises:
      ValueError: a file is not as the run wrote it.
    """
    folder = epath.Path(where)
    if isinstance(record, dict) and "digest" not in record and not (folder / SUMS).is_file():
        return
    for finding in [of_report(record), *of_files(folder)]:
        if finding.state == DIFFERS:
            raise ValueError(
                f"{folder}: {finding.what}; restore the file, or delete {RECORD} and the same command measures the networks again"
            )
