"""Colours of the page and of its pictures."""

from __future__ import annotations

from collections.abc import Iterable

# name -> (light, dark). The pictures are drawn in the light colours, which the page replaces by CSS variables: no two
# may be equal. Blue, orange and grey also differ in lightness, so they stay apart for colour-blind readers and in grey
# print.
COLORS = {
    "ink": ("#1b2430", "#e7ebf1"), "muted": ("#556070", "#a3adbb"), "line": ("#d8dde5", "#353e4b"),
    "original": ("#97a1b0", "#7d8796"), "retrained": ("#dd8f0b", "#e9a53a"), "unlearned": ("#0b62a4", "#4aa3e6"),
    "reference-1": ("#7a5c9e", "#ab90cc"), "reference-2": ("#a8527a", "#d98bb0"), "reference-3": ("#76791f", "#bdbb55"),
    "forget": ("#bf4010", "#f0814d"), "remain": ("#0e746c", "#3dbbaf"),
}  # fmt: skip
REFERENCES = ("reference-1", "reference-2", "reference-3")
PAGE_COLORS = {
    "page": ("#f4f6f9", "#12161c"), "card": ("#fefefe", "#1b212a"), "good": ("#0e746c", "#3dbbaf"),
    "warning": ("#9a5b00", "#e9a53a"), "bad": ("#b3261e", "#ff8a80"),
}  # fmt: skip
INK, MUTED, LINE = (COLORS[name][0] for name in ("ink", "muted", "line"))
STYLE = {
    "font.family": ["DejaVu Sans"], "font.size": 8, "axes.edgecolor": LINE, "axes.labelcolor": MUTED,
    "axes.spines.top": False, "axes.spines.right": False, "axes.titlesize": 9, "axes.titleweight": "bold",
    "text.color": INK, "xtick.color": MUTED, "ytick.color": MUTED, "xtick.labelcolor": INK, "ytick.labelcolor": INK,
    "grid.color": LINE, "grid.linewidth": 0.6, "lines.linewidth": 1.6, "legend.frameon": False, "legend.fontsize": 8,
    "axes.axisbelow": True, "axes.unicode_minus": True, "svg.fonttype": "none", "svg.hashsalt": "delete_jax",
    "text.parse_math": False,  # a class may be called "$5"
}  # fmt: skip
PANEL_WIDTH = 4.4  # inches; small, so that 8 pt type is still readable where the page is 400 px wide
DIRECTIONS = {
    "down": "↓ lower is better",
    "up": "↑ higher is better",
    "retrained": "→ nearer to 0 is better",
    "": "",
}


def network_colors(names: Iterable[str]) -> dict[str, str]:
    """Chooses a key of `COLORS` for each network: its own, or for further references the next one of `REFERENCES`."""
    own = ("original", "retrained", "unlearned")
    names = list(names)
    further = [name for name in names if name not in own]
    return {name: name if name in own else REFERENCES[further.index(name) % len(REFERENCES)] for name in names}
