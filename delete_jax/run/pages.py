"""Which page of the documentation explains what an error is about."""

from __future__ import annotations

PAGES = {
    "config.unlearn.lr": "rate",
    "config.unlearn.finish": "finish",
    "--config.teacher": "your-own",
    "--arch": "your-own",
}
"""How a message starts -> the name of the page's file in docs/, without .md."""


def with_page(message: str) -> str:
    """Adds the page to read, where there is one, to the message of an error."""
    for start, page in PAGES.items():
        if message.startswith(start):
            return f"{message} (documentation: {page})"
    return message
