"""A report as files: the page, one file of HTML; the same pictures as a PNG; the record as JSON; and the list of their digests.

The page is meant for two readers: a data protection officer, who asks what was erased, from what and how that is known,
and a reviewer, who asks for every figure beside the same figure of the original and of the retrained network. It has no
script and loads nothing. Every text that comes from outside (class names, paths) is escaped by the template.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import json
import re
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from delete_jax.reports import export
from delete_jax.reports.parts import Parts
from delete_jax.reports.record import check, sealed
from delete_jax.reports.style import COLORS, DIRECTIONS, PAGE_COLORS, STYLE
from delete_jax.reports.words import quoted
from delete_jax.writing import write_all

if TYPE_CHECKING:
    import jinja2


PAGE, PICTURE, RECORD, SUMS = "report.html", "report.png", "report.json", "SHA256SUMS"
"""The files of a report; the last lists the digests of the others, and of what lies beside them, as `sha256sum` writes it."""


def write_report(
    record: dict[str, Any],
    make_parts: Callable[[dict[str, Any]], Parts],
    directory: Path | str,
    beside: Sequence[str] = (),
) -> Parts:
    """Writes `report.html`, `report.png`, `report.json` (the record itself, in its order, with its digest) and `SHA256SUMS`, which lists
    the digests of these files, into `directory`.

    Everything is made before anything is written, and each file is renamed into place, the JSON last: a run that fails
    or is killed leaves the older files whole, and a `report.json` means that the others are there.

    A number that is not finite becomes null ("–" on the page), and the page says that training diverged if it was in
    the history: methods that blow up, as gradient ascent does, deserve a report too. NumPy and JAX values are
    converted.

    Args:
      record: the figures of the run, as `delete_jax.reports.record` describes them.
      make_parts: gets the record as plain JSON, checked, and says what the page shows.
      directory: made if it is missing.
      beside: files of the directory that `SHA256SUMS` shall list, too, those of them that are there.

    Returns:
      What the page shows.

    Raises:
      ValueError: a key is missing, a shape does not fit, or a value has no JSON form. Nothing is written then.
    """
    import matplotlib

    record = sealed(record)
    check(record)
    with matplotlib.rc_context(STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from")  # names in other scripts: the browser has the font
        parts = make_parts(record)
        page, sheet = render(record, parts).encode(), export.png(parts)
    text = json.dumps(record, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    content = {PAGE: page, PICTURE: sheet, RECORD: text.encode()}
    there = {name: (directory / name).read_bytes() for name in beside if (directory / name).is_file()}
    lines = [f"{hashlib.sha256(data).hexdigest()}  {name}\n" for name, data in sorted({**there, **content}.items())]
    files = {SUMS: "".join(lines).encode(), **content}  # the JSON last
    write_all({directory / name: data for name, data in files.items()})
    return parts


def render(record: dict[str, Any], parts: Parts) -> str:
    """Renders the whole HTML document."""
    number = itertools.count()
    return environment().get_template("page.html.jinja").render(
        record=record,
        title=f"Unlearning report: {quoted(record)} of {record['dataset']['name']}",
        parts=parts,
        colors=COLORS | PAGE_COLORS,
        directions=DIRECTIONS,
        draw=lambda panel: export.svg(panel, f"p{next(number)}"),
    )  # fmt: skip


@functools.cache
def environment() -> jinja2.Environment:
    """Returns the templates of this package, which escape every text."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("delete_jax.reports", "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        finalize=_keep_percent,
    )
    environment.filters |= {"kind": lambda block: type(block).__name__, "data_uri": export.data_uri}
    return environment


def _keep_percent(value: Any) -> Any:
    """Keeps a number and its "%" on one line, in every text that the template has not escaped itself (`Markup`)."""
    return re.sub(r"(?<=\d) %", "\u00a0%", value) if type(value) is str else value
