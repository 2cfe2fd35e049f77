"""Links notebooks to Colab, on a site that is built where the repository's place is known: its owner and name, as REPOSITORY."""

import re
from typing import Any

NOTEBOOK = re.compile(r"`(notebooks/\w+\.ipynb)`")


def on_page_markdown(markdown: str, *, config: Any, **_: Any) -> str:
    """Puts a link behind each notebook that a page names by its path. MkDocs calls this for every page."""
    repository = config["extra"]["repository"]
    if not repository:
        return markdown
    address = f"https://colab.research.google.com/github/{repository}/blob/main"
    return NOTEBOOK.sub(rf"`\1` ([open in Colab]({address}/\1))", markdown)
