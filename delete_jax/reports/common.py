"""What the pages of several tasks share: the record in blocks, beside the groups of measures that a page asks for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from delete_jax.metrics import MEASURES, show
from delete_jax.reports.figures import MAX_BARS, Series, lines
from delete_jax.reports.parts import (
    Block,
    Card,
    Code,
    Column,
    Details,
    Examples,
    Fact,
    Facts,
    Figures,
    Group,
    Panel,
    Point,
    Row,
    Sample,
    Samples,
    Section,
    Table,
    Text,
)
from delete_jax.reports.record import (
    BY_NAME,
    ORIGINAL,
    RETRAINED,
    UNLEARNED,
    check_images,
    erased_before,
    floats,
    metric,
    present,
)
from delete_jax.reports.search import search_blocks
from delete_jax.reports.style import network_colors
from delete_jax.reports.words import faster, percent, quoted, seconds, setting, thousands

MeasureGroups = Mapping[str, Sequence[str]]
"""A group's title -> names of measures (`delete_jax.metrics.MEASURES`)."""

MAX_IMAGES = 12  # sample images shown of the forgotten, and of the remaining classes

MAX_NAMES = 20  # of images that a request named
REPRODUCIBLE = {
    True: "yes: the same command, with these versions on a device of this kind, gives the same bits",
    False: "not on a GPU: XLA may have chosen kernels by timing them (config.reproducible)",
}


def check_examples(record: dict[str, Any], examples: Examples) -> None:
    """Checks that the examples fit each other and the number of classes.

    Raises:
      ValueError: a shape or a type differs.
    """
    check_images(examples.images, examples.labels)
    expected = (len(examples.labels), len(record["dataset"]["class_names"]))
    shapes = np.shape(examples.before), np.shape(examples.after)
    if shapes != (expected, expected):
        raise ValueError(f"examples.before and examples.after have shapes {shapes}: give {expected}")


# ------------------------------------------------------------------------------------------------------ main figures


def measure_card(record: dict[str, Any], name: str, title: str, titles: Mapping[str, str] = BY_NAME) -> Card:
    """Makes the card of a measure of the unlearned network, with the other networks below it.

    Args:
      name: of the measure. title: above its value.
      titles: what networks are called.
    """
    row = MEASURES[name]
    networks = present(record, titles)
    *others, value = [show(metric(record, network, name), row.show) for network in networks]
    beside = [f"{other} {called}" for other, called in zip(others, networks.values(), strict=False)]
    return Card(title, value, row.direction, beside)


def time_card(record: dict[str, Any]) -> Card:
    """Makes the card of what unlearning took."""
    cost = record["cost"]
    compiling = cost.get("unlearn_compile_seconds")
    compiled = [f"and {seconds(compiling)} compilation"] if compiling else []
    return Card("Time to unlearn", seconds(cost["unlearn_seconds"]), "down", [faster(cost), *compiled])


# ---------------------------------------------------------------------------------------------------------- sections


def provenance(record: dict[str, Any], titles: Mapping[str, str] = BY_NAME) -> Section:
    """Lists what was erased, from what, and how: everything needed to make it again.

    Args:
      titles: what networks are called in the tables, said where it differs from their names.
    """
    data, forget, model, method, cost = (record[key] for key in ("dataset", "forget", "model", "method", "cost"))
    one = len(forget["classes"]) == 1
    labels = (
        f"label{'' if one else 's'} {setting(forget['classes'])}; the dataset has {len(data['class_names'])} classes"
    )
    sizes = [
        f"{thousands(data[f'num_{part}'])} {part}" for part in ("train", "validation", "test") if f"num_{part}" in data
    ]
    about = [f"{key} = {thousands(v) if type(v) is int else setting(v)}" for key, v in model.items() if key != "name"]
    how = (
        "DELETE: each forget sample is trained towards the original's own answer, with what is erased taken out of it."
    )
    took = {"teacher_seconds": "training the original", "retrain_seconds": "retraining",
             "unlearn_seconds": "unlearning", "search_seconds": "of which the search for its rate",
             "unlearn_compile_seconds": "its compilation"}  # fmt: skip
    spent = [f"{name} {seconds(cost[key])}" for key, name in took.items() if cost.get(key) is not None]
    spent += [f"{cost['samples_per_second']:.0f} samples/s"] if cost.get("samples_per_second") else []
    spent += [f"peak memory {show(cost['peak_bytes'], 'bytes')}"] if cost.get("peak_bytes") else []
    task = record.get("task")
    facts = [
        Fact("Erased", [forget.get("what") or f"{quoted(record)} ({labels})"]),
        Fact(
            "Forget samples", [f"{thousands(forget['num_samples'])} training samples", Code(forget["digest"], "sha256")]
        ),
        *([Fact("Named images", [_names(forget["files"])])] if forget.get("files") else []),
        Fact("Dataset", [f"{data['name']}: {', '.join(sizes)}", Code(data["digest"], "digest")]),
        *([Fact("Task", ["; ".join([setting(task.get("name")), *_settings(task)])])] if task else []),
        Fact("Model", ["; ".join([setting(model.get("name")), *about])]),
        *(_network(record, name, called) for name, called in present(record, titles).items()),
        Fact("Method", [*([how] if method.get("name") == "delete" else []), "; ".join(_settings(method, ()))]),
        Fact("Cost", ["; ".join(spent)]),
        Fact("Device", [setting(record["device"])]),
        *(
            [Fact("Reproducible", [REPRODUCIBLE[record["reproducible"] is not False]])]
            if "reproducible" in record
            else []
        ),
        Fact("Command", [Code(setting(record["command"]))]),
        Fact("Versions", [setting(record["versions"])]),
        Fact("Created", [setting(record["created"])]),
        *([Fact("Run", [Code(setting(record["run"]["id"]), "id")])] if "run" in record else []),
        *([Fact("This report", [Code(setting(record["digest"]), "digest")])] if "digest" in record else []),
    ]
    return Section("What was erased, from what, and how", [Facts("Provenance", facts)])


def _names(files: Sequence[str]) -> str:
    """The first names; all of them are in `report.json`."""
    more = f" and {thousands(len(files) - MAX_NAMES)} more, in report.json" if len(files) > MAX_NAMES else ""
    return ", ".join(files[:MAX_NAMES]) + more


def _settings(values: dict[str, Any], left_out: Sequence[str] = ("name",)) -> list[str]:
    return [f"{key} = {setting(value)}" for key, value in values.items() if key not in left_out]


def _network(record: dict[str, Any], name: str, called: str) -> Fact:
    network, usual = record["networks"][name], name.replace("_", ", ")
    copied = [
        Code(setting(network[key]), label) for key, label in (("source", ""), ("digest", "sha256")) if network.get(key)
    ]
    return Fact(f"{usual.capitalize()} network", [*([called] if called != usual else []), *copied])


def comparison(
    record: dict[str, Any],
    groups: MeasureGroups,
    titles: Mapping[str, str] = BY_NAME,
    elsewhere: MeasureGroups = BY_NAME,
) -> Section:
    """Makes the part with every measure of the networks side by side, and what the retrained network is there for.

    Args:
      groups: the measures in order. Those that some network has and no group shows, such as a config file's own, follow.
      titles: what networks are called.
      elsewhere: groups that another section of the page shows.
    """
    text = "No retrained reference was made for this run, so there is no yardstick for what is attainable."
    if RETRAINED in record["networks"]:
        called = present(record, titles)[RETRAINED].capitalize()
        text = (f"{called}: trained from scratch without what was erased. It is the yardstick: the closer the unlearned "
                "network is to it, the better, also where a figure could go further.")  # fmt: skip
    grouped = {name for names in (*groups.values(), *elsewhere.values()) for name in names}
    further = {"Further measures": [name for name in MEASURES if name not in grouped]}
    table = measure_table(record, {**groups, **further}, titles)
    return Section("Original, retrained, unlearned", [Text(text), table])


def measure_table(
    record: dict[str, Any],
    groups: MeasureGroups,
    titles: Mapping[str, str] = BY_NAME,
    label: str = "All measures, side by side",
) -> Table:
    """Makes the table of these groups' measures for every network; without those, and the groups, that no network has.

    Args:
      groups: what is shown, in order; titles, directions and explanations are those of `metrics.MEASURES`.
      titles: what networks are called. label: what the table is, for screen readers.
    """
    networks = present(record, titles)
    found = []
    for title, names in groups.items():
        rows = []
        for row in (MEASURES[name] for name in names):
            values = [metric(record, network, row.name) for network in networks]
            if any(value is not None for value in values):
                rows.append(Row(row.title, [show(value, row.show) for value in values], row.text, row.direction))
        found += [Group(title, rows)] if rows else []
    columns = [Column(called, name == UNLEARNED) for name, called in networks.items()]
    return Table(label, "Measure", columns, found, stacked=True)


def process(record: dict[str, Any], curve_title: str, names: tuple[str, str] = ("erased", "all others")) -> Section:
    """Draws the loss and its terms, and what is measured on validation data, over the steps; empty without them.

    Args:
      curve_title: of what is measured. names: of its two lines, `acc_f` and `acc_r` of the record's `curve`.
    """
    history, curve = record.get("history") or {}, record.get("curve") or {}
    panels: list[Panel] = []
    looks = (("forgetting", "forget", "-"), ("retention", "remain", "--"))
    terms = [Series(f"{key} term", history[key], color, line) for key, color, line in looks if history.get(key)]
    if len(terms) == 2:
        text = "The loss is the sum of two terms: one pushes the class out, one holds the answers about all others."
        panels.append(lines("Forgetting and retention", text, history["step"], terms))
    elif terms or history.get("loss"):
        text = "The loss; this method has no target that would split it into two terms."
        terms = terms or [Series("loss", history["loss"], "unlearned")]
        panels.append(lines("Loss", text, history["step"], terms))
    if curve.get("step"):
        both = [Series(names[0], curve["acc_f"], "forget"), Series(names[1], curve["acc_r"], "remain", "--")]
        text = "Measured on validation images, never on the test set."
        panels.append(lines(curve_title, text, curve["step"], both, fractions=True))
    blocks: list[Block] = [Figures(panels)] if panels else []
    return Section("While unlearning", blocks + search_blocks(record.get("search") or [], record.get("notes") or []))


def network_series(record: dict[str, Any], name: str, titles: Mapping[str, str] = BY_NAME) -> dict[str, Series]:
    """Makes bars of a figure that networks have for every class, in its colour for each network."""
    networks = present(record, titles)
    colors = network_colors(networks)
    return {
        network: Series(called, floats(record["networks"][network]["metrics"][name]), colors[network])
        for network, called in networks.items()
    }


def class_table(record: dict[str, Any], label: str, counts: np.ndarray, titles: Mapping[str, str] = BY_NAME) -> Details:
    """Makes a table of `per_class` of all networks, to unfold where there are many classes.

    Args:
      counts: the number of test images of each class.
    """
    networks, erased = present(record, titles), {*record["forget"]["classes"], *erased_before(record)}
    rows = []
    for c, name in enumerate(record["dataset"]["class_names"]):
        accuracies = [record["networks"][network]["metrics"]["per_class"][c] for network in networks]
        values = ["not measured" if accuracy is None else percent(accuracy) for accuracy in accuracies]
        rows.append(Row(mark(name, c in erased), [f"{counts[c]:.0f}", *values]))
    columns = [Column("Images"), *(Column(called, network == UNLEARNED) for network, called in networks.items())]
    return Details("The same as numbers", [Table(label, "Class", columns, [Group("", rows)])], len(rows) <= MAX_BARS)


def mark(name: str, erased: bool) -> str:
    """Returns the name of a class, marked where it was erased."""
    return f"✕ {name}" if erased else name


def samples(record: dict[str, Any], examples: Examples, heads: tuple[str, str] = ("Erased", "Not erased")) -> Section:
    """Images of the forgotten classes and of others, each under its head, with the answers before and after."""
    names = record["dataset"]["class_names"]
    hit = np.isin(examples.labels, record["forget"]["classes"])
    blocks: list[Block] = []
    for head, rows in zip(heads, (np.flatnonzero(hit), np.flatnonzero(~hit)), strict=True):
        shown = []
        for i in rows[:MAX_IMAGES]:
            answers = [
                f"{when}: {names[int(np.argmax(p))]} {100 * float(np.max(p)):.0f} %"
                for when, p in (("before", examples.before[i]), ("after", examples.after[i]))
            ]
            true = names[int(examples.labels[i])]
            shown.append(Sample(examples.images[i], f"A test image of class {true}", true, answers))
        blocks += [Samples(head, shown)] if shown else []
    text = Text("Test images with the first answer and its probability.")
    return Section("Samples before and after", [text, *blocks] if blocks else [])


# ------------------------------------------------------------------------------------------------------------ limits


def inside_limit(record: dict[str, Any]) -> Point:
    """Says what was found in the network's features: by this run's probe, on all labels or on ten a class, or that none was run."""
    probe, taught = "probe_10", " with up to ten labelled images per class"
    if metric(record, UNLEARNED, "probe") is not None:
        probe, taught = "probe", ""
    original, retrained, unlearned = (metric(record, name, probe) for name in (ORIGINAL, RETRAINED, UNLEARNED))
    text = "This report is about what the network answers. "
    if unlearned is None:
        text += (
            "Its inner features may still carry the class: in this project's measurements, a linear probe on frozen features "
            "often still recognised the erased class. So it often did on those of a network retrained without the class: the "
            "gap to it counts. No probe was run for this page; the settings of a run can switch one on."
        )
    else:
        text += f"A linear probe, taught on its frozen features{taught}, still recognises {percent(unlearned)} of the erased test images"
        text += "." if original is None else f" ({percent(original)} on the original's features)."
        if retrained is not None:
            text += f" On the features of the network retrained without the class it recognises {percent(retrained)}: "
            text += "the gap to it counts."
    return Point("The answers forget, the inside may not.", text)
