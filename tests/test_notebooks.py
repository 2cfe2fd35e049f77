"""The notebooks come with the outputs of a whole run from top to bottom; `make notebooks` executes them."""

import json
import pathlib
import runpy

import pytest

ROOT = pathlib.Path(__file__).parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def test_there_are_notebooks():
    assert {path.stem for path in NOTEBOOKS} == {"digits", "pytorch"}


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_stored_outputs(path):
    """Each cell was run once, in order, without an error or a warning, and nothing names a folder of the machine."""
    cells = [cell for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell["outputs"]]
    assert outputs
    assert {output["output_type"] for output in outputs} <= {"stream", "display_data"}
    assert {output.get("name", "stdout") for output in outputs} == {"stdout"}
    text = path.read_text()
    assert not [place for place in ("/tmp/", "/home/", "/root/") if place in text]
    said = "".join(line for output in outputs for line in output.get("text", ()))
    assert any("3:   0.0%" in line or "3: 0.0%" in line for line in said.splitlines())  # it is forgotten


@pytest.mark.parametrize("page", ["index.md", "getting-started.md"])
def test_links_to_colab_where_the_repository_is_known(page):
    on_page = runpy.run_path(str(ROOT / "docs" / "colab.py"))["on_page_markdown"]
    text = (ROOT / "docs" / page).read_text()
    assert on_page(text, config={"extra": {"repository": ""}}, page=None, files=None) == text
    linked = on_page(text, config={"extra": {"repository": "owner/name"}}, page=None, files=None)
    for path in NOTEBOOKS:
        place = f"notebooks/{path.name}"
        assert (
            f"`{place}` ([open in Colab](https://colab.research.google.com/github/owner/name/blob/main/{place}))"
            in linked
        )
