"""What the benchmarks decide and print: the search, means over seeds and classes, cells that failed; and that they run."""

import math
import pathlib
import sys

import pytest

BENCHMARKS = pathlib.Path(__file__).parent.parent / "benchmarks"


@pytest.fixture
def compare(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import compare

    return compare


def test_search_asks_every_other_and_the_best_ones_neighbours(compare):
    candidates = (1, 2, 3, 4, 5, 6, 7, 8, 9)
    asked = []

    def score(rate):
        asked.append(rate)
        return -abs(rate - 5.2)

    scores = compare.search(candidates, score)
    assert asked == [2, 4, 6, 8, 5, 7]
    assert max(scores, key=scores.get) == 5
    assert set(compare.search((1,), float)) == {1}
    assert set(compare.search(candidates, lambda rate: -rate)) == {1, 2, 3, 4, 6, 8}
    assert set(compare.search(candidates, float)) == {2, 4, 6, 7, 8, 9}


def test_means(compare):
    assert compare.mean_std([1.0, 3.0]) == (2, pytest.approx(math.sqrt(2)))
    assert compare.mean_std([1.0]) == (1, 0)
    assert compare.mean_std([1, None]) == (math.inf, 0)
    assert compare.cell({"acc_ft": [0.1, 0.3]}, "acc_ft") == "20.0 ± 14.1"
    assert compare.cell({"relearn_steps": [3, None]}, "relearn_steps") == "> 50"
    assert compare.cell({}, "acc_ft") == ""
    rows = [
        {"forget": "a", "method": "m", "rate": 1, "acc_ft": [0.0, 0.2], "relearn_steps": [1, None]},
        {"forget": "b", "method": "m", "rate": 1, "acc_ft": [0.4, 0.4], "relearn_steps": [1, 2]},
        {"forget": "a", "method": "n", "rate": 1, "failed": "diverged"},
        {"forget": "b", "method": "n", "rate": 1, "acc_ft": [0.4, 0.4]},
    ]
    first, second = compare.means(rows)
    assert first["acc_ft"] == pytest.approx([0.2, 0.3])
    assert "relearn_steps" not in first
    assert "failed" in second


def test_a_failed_seed_fails_the_row(compare):
    assert compare.summary([{"acc_ft": 0.1}, {"failed": "diverged at step 3"}]) == {"failed": "diverged at step 3"}
    assert compare.summary([{"acc_ft": 0.1}, {"acc_ft": 0.2}]) == {"acc_ft": [0.1, 0.2]}


def test_anchors_counts_the_classes_that_a_rate_serves(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import anchors

    def row(label, method, mode, rate, acc_ft, acc_rt):
        return {"class": label, "method": method, "mode": mode, "rate": rate, "acc_ft": acc_ft, "acc_rt": acc_rt}

    rows = [row(label, "original", "", None, [1.0, 1.0], [0.8, 1.0]) for label in "ab"]
    for mode in anchors.MODES:
        for rate in anchors.RATES:
            rows.append(row("a", "delete", mode, rate, [0.01, 0.0], [0.885, 0.9]))  # 0.75 points lost: serves
            rows.append(row("b", "delete", mode, rate, [0.0, 0.0], [0.85, 0.89]))  # three points lost
            rows.append(row("a", "anchored", mode, rate, [0.01, 0.02], [0.9, 0.9]))  # 1.5 % left
            rows.append(row("b", "anchored", mode, rate, [0.0, 0.0], [0.94, 0.94]))
    lines = [line for line in anchors.text(rows, ("turn",), 2).splitlines() if line.startswith("| ")][1:]
    cells = [line.split(" | ")[1:3] for line in lines]
    assert cells == 2 * [["delete", "0.2 / -1.9 (-3.0) / 1"], ["anchored", "0.8 / +2.0 (+0.0) / 1"]]


@pytest.mark.parametrize("path", sorted(BENCHMARKS.glob("*.py")), ids=lambda path: path.stem)
def test_each_says_how_it_is_run(path):
    if path.stem in ("bench", "torch_reference"):
        return
    assert f"python benchmarks/{path.name}" in path.read_text().split('"""')[1]


@pytest.mark.parametrize(
    "name", ["compare", "figures", "features", "sequential", "anchors", "segmentation", "backdoor", "faces"]
)
def test_bad_input_is_one_line(name, monkeypatch, capsys, tmp_path):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    script = __import__(name)
    argv = [name, f"--config={tmp_path}/nope.py", f"--out={tmp_path / 'out'}"]
    monkeypatch.setattr(sys, "argv", [*argv, "--classes", "1"] if name == "anchors" else argv)
    assert script.main() == 2
    error = capsys.readouterr().err
    assert error.startswith(f"{name}: error: ")
    assert error.count("\n") == 1
    assert "nope.py" in error or "table.json" in error
