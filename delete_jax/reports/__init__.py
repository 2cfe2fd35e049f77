"""Reports: the figures of a run and its pictures, as one HTML file, a PNG and a JSON.

A task says what its page shows, as data; this package writes the files and knows no task. A page is composed of the blocks
in `parts`; `common` makes those that most pages need:

    def parts(record, examples):
        groups = {"What is left": ("acc_ft", "forget_mass"), "Everything else": ("acc_rt",)}
        return report.Parts(
            verdict(record),
            [report.measure_card(record, "acc_ft", "Still recognised"), report.time_card(record)],
            [
                report.provenance(record),
                report.comparison(record, groups),
                report.process(record, "Accuracy while unlearning"),
                report.Section("Remarks", [report.Text("What else there is to say.")]),
            ],
            [report.Point("One run.", "Small differences may be chance.")],
        )

    report.write_report(record, lambda record: parts(record, examples), directory)

Importing it loads neither Matplotlib nor Jinja: they are loaded when a report is written.
"""

from delete_jax.reports.common import (
    MeasureGroups,
    check_examples,
    class_table,
    comparison,
    inside_limit,
    mark,
    measure_card,
    measure_table,
    network_series,
    process,
    provenance,
    samples,
    time_card,
)
from delete_jax.reports.figures import MAX_BARS, Series, bars, confusion, lines, most_changed, most_frequent
from delete_jax.reports.page import write_report
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
    Key,
    Legend,
    Panel,
    Parts,
    Picture,
    PictureRow,
    Pictures,
    Point,
    Row,
    Sample,
    Samples,
    Section,
    Table,
    Text,
    Verdict,
)
from delete_jax.reports.record import check_images, check_metrics, floats, metric, plain, present
from delete_jax.reports.style import COLORS, STYLE, network_colors
from delete_jax.reports.words import number, percent, quoted, seconds, short, unmeasured, word

__all__ = [
    "COLORS",
    "MAX_BARS",
    "STYLE",
    "Block",
    "Card",
    "Code",
    "Column",
    "Details",
    "Examples",
    "Fact",
    "Facts",
    "Figures",
    "Group",
    "Key",
    "Legend",
    "MeasureGroups",
    "Panel",
    "Parts",
    "Picture",
    "PictureRow",
    "Pictures",
    "Point",
    "Row",
    "Sample",
    "Samples",
    "Section",
    "Series",
    "Table",
    "Text",
    "Verdict",
    "bars",
    "check_examples",
    "check_images",
    "check_metrics",
    "class_table",
    "comparison",
    "confusion",
    "floats",
    "inside_limit",
    "lines",
    "mark",
    "measure_card",
    "measure_table",
    "metric",
    "most_changed",
    "most_frequent",
    "network_colors",
    "network_series",
    "number",
    "percent",
    "plain",
    "present",
    "process",
    "provenance",
    "quoted",
    "samples",
    "seconds",
    "short",
    "time_card",
    "unmeasured",
    "word",
    "write_report",
]
