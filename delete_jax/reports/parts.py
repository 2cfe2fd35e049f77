"""What a page is made of: data only. The template turns it into HTML and escapes every text of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.axes import Axes


class Verdict(NamedTuple):
    """level: "good", "warning" or "bad"; label: two or three words; headline: one sentence; notes: what to know.

    further: one more sentence, below the headline; none when "".
    lost: what was lost besides, where that is much: sentences that the command repeats as warnings.
    """

    level: str
    label: str
    headline: str
    notes: Sequence[str] = ()
    further: str = ""
    lost: Sequence[str] = ()


class Card(NamedTuple):
    """One main figure. direction: a key of `DIRECTIONS`; details: lines below, such as the same of other networks."""

    label: str
    value: str
    direction: str
    details: Sequence[str] = ()


class Panel(NamedTuple):
    """A picture that is drawn for the page and again for the PNG.

    caption: what a reader should know of it. alt: what it shows, in words, for those who cannot see it.
    height: in inches, at a width of `PANEL_WIDTH`. draw: draws it into empty axes.
    """

    title: str
    caption: str
    alt: str
    height: float
    draw: Callable[[Axes], None]


# ---------------------------------------------------------------------------------------------- blocks of a section


class Text(NamedTuple):
    """A paragraph."""

    text: str


class Figures(NamedTuple):
    """Panels, two beside each other where there is room. `Parts.panels` finds them here for the PNG."""

    panels: Sequence[Panel]


class Column(NamedTuple):
    """The head of a table's column; the figures of a strong one stand out."""

    title: str
    strong: bool = False


class Row(NamedTuple):
    """A row of a table. text and direction (a key of `DIRECTIONS`) stand small below its head."""

    head: str
    cells: Sequence[str]
    text: str = ""
    direction: str = ""


class Group(NamedTuple):
    """Rows of a table under a heading of their own; without one where the title is ""."""

    title: str
    rows: Sequence[Row]


class Table(NamedTuple):
    """Figures in columns.

    label: what it is, for screen readers. corner: the head of the rows' heads.
    stacked: on narrow screens the cells of a row stand below its head, each with its column's title.
    """

    label: str
    corner: str
    columns: Sequence[Column]
    groups: Sequence[Group]
    stacked: bool = False


class Code(NamedTuple):
    """Something to copy, as a digest, a path or a command, after a word that says what it is."""

    text: str
    label: str = ""


class Fact(NamedTuple):
    """A row of `Facts`: what it is about, and the lines that say it."""

    head: str
    lines: Sequence[str | Code]


class Facts(NamedTuple):
    """Keys and values. label: what they are, for screen readers."""

    label: str
    facts: Sequence[Fact]


class Sample(NamedTuple):
    """image: uint8 `[h, w, c]`, grey (c = 1) or RGB (c = 3); of other channels the first is shown. lines: below it."""

    image: np.ndarray
    alt: str
    title: str
    lines: Sequence[str] = ()


class Samples(NamedTuple):
    """Images with what was answered, under a heading."""

    title: str
    samples: Sequence[Sample]


class Picture(NamedTuple):
    """An image of `Pictures`, as in `Sample`, and what it shows in words."""

    image: np.ndarray
    alt: str


class PictureRow(NamedTuple):
    """Pictures of one thing. head: its name; "" in all rows where they need none."""

    pictures: Sequence[Picture]
    head: str = ""


class Pictures(NamedTuple):
    """A table of pictures: rows are things, columns are views. columns: titles, the one of the rows' heads first."""

    label: str
    columns: Sequence[str]
    rows: Sequence[PictureRow]


class Key(NamedTuple):
    """A colour of `Legend`, "#rrggbb", and what it stands for."""

    color: str
    title: str


class Legend(NamedTuple):
    """What colours stand for."""

    keys: Sequence[Key]


class Details(NamedTuple):
    """Blocks that a reader can unfold."""

    summary: str
    blocks: Sequence[Block]
    opened: bool = False


Block = Text | Figures | Table | Facts | Samples | Pictures | Legend | Details
"""What a section may contain. Each has a macro of its name in `blocks.html.jinja`."""


class Section(NamedTuple):
    """A heading and what stands below it; a section without blocks is left out."""

    title: str
    blocks: Sequence[Block]


class Point(NamedTuple):
    """One limit of what the page can say: a short sentence, and the explanation."""

    title: str
    text: str


class Parts(NamedTuple):
    """A whole page, top down: the verdict, its main figures, the sections, and what the page cannot say."""

    verdict: Verdict
    cards: Sequence[Card]
    sections: Sequence[Section]
    limits: Sequence[Point]

    @property
    def panels(self) -> list[Panel]:
        """The panels of all sections, in the order of the page."""
        blocks = (block for section in self.sections for block in section.blocks)
        return [panel for block in blocks if isinstance(block, Figures) for panel in block.panels]


class Examples(NamedTuple):
    """Test samples to show, with the answers before and after; `m` may be 0, then the page shows none.

    images: uint8 `[m, h, w, c]`, grey (c = 1) or RGB (c = 3); of other channels the first is shown.
    labels: int32 `[m]`, true classes. before, after: float32 `[m, k]`, probabilities of the original and the unlearned.
    """

    images: np.ndarray
    labels: np.ndarray
    before: np.ndarray
    after: np.ndarray
