"""What somebody may have meant by a word that there is not."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any


def nearest(word: Any, known: Iterable[str]) -> str:
    """Finds the known word that is most like an unknown one, to stand behind it in a message.

    Returns:
      " (did you mean WORD?)"; "" where no word is like it.

    Examples:
      >>> from delete_jax.nearest import nearest
      >>> nearest("digts", ["digits", "faces"])
      ' (did you mean digits?)'
    """
    found = difflib.get_close_matches(word, list(known), 1) if isinstance(word, str) else []
    return f" (did you mean {found[0]}?)" if found else ""
