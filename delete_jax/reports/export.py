"""Pictures as what a page can hold: panels as inline SVG and as one PNG, images as data URIs."""

from __future__ import annotations

import base64
import io
import re
import textwrap
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from delete_jax.reports.parts import Panel, Parts
from delete_jax.reports.style import COLORS, DIRECTIONS, MUTED, PAGE_COLORS, PANEL_WIDTH

if TYPE_CHECKING:
    from markupsafe import Markup
    from matplotlib.figure import SubFigure

ROW = 3  # panels beside each other in the PNG


class Drawing(NamedTuple):
    """An SVG image without its outermost element, which the template writes."""

    view_box: str
    content: Markup


def svg(panel: Panel, name: str) -> Drawing:
    """Draws the panel as inline SVG that follows the page's colours and font.

    Args:
      name: prefixes the ids in it, which must be unique in a page.
    """
    from markupsafe import Markup
    from matplotlib.figure import Figure

    figure = Figure(figsize=(PANEL_WIDTH, panel.height), layout="constrained")
    panel.draw(figure.add_subplot())
    file = io.StringIO()
    figure.savefig(file, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->", "", file.getvalue(), flags=re.DOTALL)
    head, content = re.fullmatch(r".*?(<svg\b[^>]*>)(.*)</svg>\s*", text, flags=re.DOTALL).groups()  # type: ignore[union-attr]
    (view_box,) = re.findall(r'viewBox="([^"]*)"', head)

    def adapt(tag: re.Match[str]) -> str:  # tags only: a class may be called "#1b2430"
        found = tag[0].replace("xlink:href", "href").replace(' id="', f' id="{name}-')
        found = found.replace('href="#', f'href="#{name}-').replace("url(#", f"url(#{name}-")
        for color, (light, _) in COLORS.items():
            found = found.replace(light, f"var(--{color})")
        return found

    content = re.sub(r"<[^>]+>", adapt, content)
    return Drawing(view_box, Markup(re.sub(r">\s+<", "><", content)))  # Matplotlib has escaped the texts


def png(parts: Parts) -> bytes:
    """Draws the panels on one sheet, under the headline and the main figures."""
    from matplotlib.figure import Figure

    panels = parts.panels
    rows = np.array_split(np.arange(len(panels)), -(-len(panels) // ROW)) if panels else []
    top = 1.95 + 0.16 * max((len(card.details) for card in parts.cards), default=0)
    heights = [top, *(min(1 + max(panels[i].height for i in row), 4.5) for row in rows)]
    figure = Figure(figsize=(13, sum(heights)), layout="constrained", facecolor="#ffffff")
    figure.get_layout_engine().set(w_pad=0.2, h_pad=0.1)
    head, *below = figure.subfigures(len(heights), 1, height_ratios=heights, squeeze=False)[:, 0]
    _draw_head(head, parts, top)
    for row, part in zip(rows, below, strict=True):
        for i, place in zip(row, part.subfigures(1, len(row), squeeze=False)[0], strict=True):
            panels[i].draw(place.add_subplot())
            place.suptitle(panels[i].title, x=0.015 * len(row), ha="left", fontsize=9, fontweight="bold")
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=120, metadata={"Software": None})
    return file.getvalue()


def _draw_head(figure: SubFigure, parts: Parts, height: float) -> None:
    """The verdict and the main figures; height: of the figure, in inches."""

    def write(x: float, inches: float, text: str, **look: Any) -> None:
        figure.text(x, 1 - inches / height, text, va="top", **look)

    judged = parts.verdict
    write(0.02, 0.18, judged.label.upper(), color=PAGE_COLORS[judged.level][0], fontsize=11, fontweight="bold")
    headline = "\n".join(textwrap.wrap(" ".join(judged.headline.split()), 118)[:3])
    write(0.02, 0.46, headline, fontsize=12.5, linespacing=1.4)
    for i, card in enumerate(parts.cards):
        x = 0.02 + 0.98 / max(len(parts.cards), 5) * i
        write(x, 1.31, card.value, fontsize=19, fontweight="bold")
        write(x, 1.68, f"{card.label} {DIRECTIONS[card.direction][:1]}", fontsize=8.5)
        write(x, 1.9, "\n".join(card.details), fontsize=7.5, color=MUTED, linespacing=1.4)


def data_uri(image: np.ndarray) -> str:
    """Encodes an image uint8 `[h, w, c]` as a PNG in a data URI: grey (c = 1) or RGB (c = 3); of other channels the first."""
    from matplotlib.image import imsave

    step = -(-max(image.shape[:2]) // 128)  # shown small, so a large photograph is thinned out
    pixels = np.asarray(image)[::step, ::step]
    pixels = pixels if pixels.shape[-1] == 3 else np.repeat(pixels[..., :1], 3, axis=-1)
    file = io.BytesIO()
    imsave(file, np.ascontiguousarray(pixels), format="png", metadata={"Software": None})
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
