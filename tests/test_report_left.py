"""What a report says of what is left: its wording follows the figures, beside those of the retrained network."""

import pytest

from delete_jax.metrics import with_gaps
from delete_jax.tasks.classification.left import section, still_found
from delete_jax.tasks.classification.page import verdict
from delete_jax.tasks.faces import page as faces
from tests.test_report import no_pictures, read, sample_examples, sample_record, write  # noqa: F401

TRACE = "less than in the retrained network is another trace, not a better result"


def record_of(auc, probe, retrained=True):
    """auc, probe: of the unlearned and of the retrained network; None where it was not measured."""
    record = sample_record(retrained=retrained)
    for name, values in (("residual_auc", auc), ("probe_10", probe)):
        for network, value in zip(("unlearned", "retrained"), values, strict=True):
            if value is not None and network in record["networks"]:
                record["networks"][network]["metrics"][name] = value
    return record


@pytest.mark.parametrize(
    ("auc", "probe", "sentence"),
    [
        (
            (0.959, 0.788),
            (0.555, 0.407),
            "Someone who can query probabilities ranks an erased image above one of another class in 95.9 % of pairs (AUC), more "
            "than in the retrained network (78.8 %); someone with the weights and up to ten labelled images per class recognises "
            "55.5 % of the erased images, more than in the retrained network (40.7 %).",
        ),
        (
            (0.7, 0.788),
            (0.407, 0.407),
            "Someone who can query probabilities ranks an erased image above one of another class in 70.0 % of pairs (AUC), less "
            "than in the retrained network (78.8 %); someone with the weights and up to ten labelled images per class recognises "
            f"40.7 % of the erased images, the same as in the retrained network (40.7 %); {TRACE}.",
        ),
        (
            (0.95, 0.94999),  # nothing that is not shown decides
            (0.3, 0.407),
            "Someone who can query probabilities ranks an erased image above one of another class in 95.0 % of pairs (AUC), the "
            "same as in the retrained network (95.0 %); someone with the weights and up to ten labelled images per class recognises "
            f"30.0 % of the erased images, less than in the retrained network (40.7 %); {TRACE}.",
        ),
        (
            (None, None),
            (0.9999, 1.0),
            "Someone with the weights and up to ten labelled images per class recognises >99.9 % of the erased images, less than in "
            f"the retrained network (100.0 %); {TRACE}.",
        ),
        ((None, None), (None, 0.4), ""),
    ],
)
def test_the_sentence_follows_the_figures(auc, probe, sentence):
    record = record_of(auc, probe)
    assert still_found(record) == sentence
    judged = verdict(record)
    assert judged.further == sentence
    assert judged[:4] == verdict(sample_record())[:4]  # it judges nothing


def test_without_a_retrained_network_nothing_is_compared():
    assert still_found(record_of((0.9, None), (0.5, None), retrained=False)) == (
        "Someone who can query probabilities ranks an erased image above one of another class in 90.0 % of pairs (AUC); someone "
        "with the weights and up to ten labelled images per class recognises 50.0 % of the erased images; there is no retrained "
        "network to compare with."
    )
    assert still_found(record_of((None, None), (None, None), retrained=False)) == ""


def test_people():
    assert faces.verdict(record_of((0.7, 0.788), (0.6, 0.5))).further == (
        "Someone who can query probabilities ranks a forgotten person's image above one of another person in 70.0 % of pairs "
        "(AUC), less than in the retrained network (78.8 %); someone with the weights and up to ten labelled images per person "
        f"recognises 60.0 % of the forgotten people's images, more than in the retrained network (50.0 %); {TRACE}."
    )


def test_attacks_have_a_section_with_their_gaps(no_pictures, tmp_path):  # noqa: F811
    record = record_of((0.959, 0.788), (0.555, 0.407))
    record["networks"]["unlearned"]["metrics"] |= {
        "residual_auc_gap": 0.171,
        "probe_10_gap": 0.148,
        "nearest_class": 0.8,
    }
    record["nearest_class"] = {"class": 7, "name": "Sneaker", "share": 0.61}
    write(record, sample_examples(record), tmp_path)
    text = " ".join(read(tmp_path)[1].text.replace("\u00a0", " ").split())
    assert text.index("not a better result") > text.index("up to ten labelled images per class recognises 55.5 %")
    assert "What is left Attacks on the networks." in text
    assert "how far two of them differ by their seed alone is not measured here (the benchmarks show it)" in text
    assert "+17.1 points" in text
    assert "+14.8 points" in text
    assert "The nearest class, “Sneaker” (61.0 % of the retrained network's predictions for what was erased)" in text
    assert "taught on its frozen features with up to ten labelled images per class, still recognises 55.5 %" in text


def test_a_section_that_has_nothing_to_show():
    assert not section(sample_record()).blocks
    without = section(record_of((0.9, None), (None, None), retrained=False))
    assert "that gap is not known" in without.blocks[0].text
    assert "one retrained network" not in without.blocks[0].text
    assert "residual_auc_gap" in with_gaps(["residual_auc"])
