"""The table of measures, continued: what is left in a network that no longer answers with what was erased.

`ATTACKS` are read beside a network that was never taught the class: each has a row of its own for the difference.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import Any

from delete_jax.given import listed
from delete_jax.metrics import audits, representation, residual
from delete_jax.metrics.accuracy import accuracy
from delete_jax.metrics.measure import Measure, before, beside


def _relearn_steps(evidence: Any, original: Any) -> int | None:
    accuracies, steps = evidence.relearned
    return representation.relearn_steps(accuracies, steps, accuracy(original.confusion, original.forget))


def _prototype(evidence: Any) -> float | None:
    if evidence.classifier is None or len(evidence.forget) != 1:
        return None
    kernel, bias = evidence.classifier
    (class_,) = evidence.forget
    features = evidence.few_features
    return representation.prototype_attack(kernel, bias, features, class_, evidence.test_features, evidence.test_labels)


def _shots(evidence: Any, shots: int | None) -> float:
    return residual.centred_prototypes(
        evidence.train_features,
        evidence.train_labels,
        evidence.test_features,
        evidence.test_labels,
        evidence.forget,
        shots=shots,
    )


def _head(evidence: Any, part: int) -> float | None:
    if evidence.classifier is None:
        return None
    kernel, bias = evidence.classifier
    return residual.head_trace(kernel, bias, evidence.forget)[part]


def _few_labels(per_class: int, part: int) -> Callable[[Any], Any]:
    return lambda e: e.few_labels(per_class)[part]


def _knowledge_ratio(evidence: Any, retrained: Any) -> float | None:
    return evidence.perturbed_accuracy / retrained.perturbed_accuracy if retrained.perturbed_accuracy else None


def _nearest(evidence: Any) -> float | None:
    return None if evidence.nearest_class is None else accuracy(evidence.confusion, [evidence.nearest_class])


def _class_rank(evidence: Any, original: Any) -> float | None:
    if evidence.classifier is None:
        return None
    layer = None if original is evidence else original.classifier
    kernel, bias = evidence.classifier
    return audits.class_rank(kernel, bias, evidence.forget, original=layer, known=evidence.before)


def _class_rank_chance(evidence: Any) -> float | None:
    return None if evidence.classifier is None else len(evidence.forget) / len(evidence.forget + evidence.remain)


def _steered(evidence: Any, original: Any) -> float | None:
    if evidence.classifier is None:
        return None
    kernel, bias = evidence.classifier
    features, labels = evidence.erased_features, evidence.test_labels[evidence.erased_test]
    found = [
        (audits.steered_accuracy(kernel, bias, features, labels, class_, vector), count)
        for class_, vector in original.steering.items()
        if (count := int((labels == class_).sum()))
    ]
    return sum(value * count for value, count in found) / len(labels) if found else None


def _nearest_loss(evidence: Any, original: Any) -> float | None:
    found = audits.largest_loss(evidence.confusion, original.confusion, evidence.remain)
    return found and found[1]


def _changed(bits: int = 0, share: float = 0.0) -> Callable[[Any], Any]:
    """The accuracy with weights of so many bits, or without a share of them."""
    if bits:
        return lambda e: e.changed_accuracy(lambda params: audits.quantised(params, bits, e.channels))
    return lambda e: e.changed_accuracy(lambda params: audits.pruned(params, share))


ATTACKS = (
    Measure("residual_auc", lambda e: residual.residual_auc(e.test, e.test_labels, e.forget), "", "percent",
            "Found by the order of probabilities", "AUC of the probability left",
            "Area under the ROC curve of the probability left, erased against all other test images; 50 % is chance.",
            "[`residual_auc`][delete_jax.metrics.residual_auc] of the probability of the erased classes together. Far below 50 %, the "
            "reversed order gives the class away."),
    Measure("acc_ft_perturbed", lambda e: e.perturbed_accuracy, "down", "percent",
            "Accuracy, perturbed test images", "forgotten, perturbed test",
            "Slightly perturbed erased test images still predicted as their own class.",
            "Three times, every pixel moves by uniform noise of up to ε = 0.03 of the pixels' span (255 for bytes) and stays within it. The "
            "noise is the same for every network, from a fixed seed."),
    Measure("probe", lambda e: e.probe, "", "percent",
            "Linear probe", "probe on features, forgotten",
            "Erased test images that a logistic regression on the features of all classes predicts correctly."),
    Measure("nearest_mean",
            lambda e: representation.nearest_class_mean(e.train_features, e.train_labels, e.test_features, e.test_labels, e.forget),
            "", "percent", "Nearest class mean", "nearest mean",
            "Erased test images whose features are nearest to the mean of their own class's training images."),
    Measure("prototype", _prototype, "", "percent",
            "Prototype attack, ten images", "prototype",
            "Erased test images predicted correctly after ten training images of the class have rewritten its part of the last layer."),
    *(Measure(f"probe_{n}{suffix}", _few_labels(n, part), "", "percent",
              f"Probe with {n} labelled image{'s' if n > 1 else ''} a class, {title}", f"probe, {n} label{'s' if n > 1 else ''} a class, {short}", text, definition)
      for n in (1, 10, 100)
      for part, suffix, title, short, text, definition in (
          (0, "", "erased images", "forgotten",
           "Erased test images that a logistic regression on the features of so few images predicts correctly; mean over draws.",
           "A linear probe (arXiv 1610.01644): [`few_label_probe`][delete_jax.metrics.few_label_probe] on the inputs of the last layer, for "
           "five draws of training images ([`draw_few`][delete_jax.metrics.draw_few])."),
          (1, "_others", "other images", "remaining", "The same for test images of the remaining classes; worse features lower both values.", ""),
      )),
    *(Measure(f"shots_{shots or 'all'}", functools.partial(_shots, shots=shots), "", "percent",
              f"Nearest prototype, {words}", f"prototype, {words}",
              "Erased test images whose nearest prototype, by the cosine of centred features, is the mean of so many images of their own class.")
      for shots, words in ((1, "one image"), (5, "five images"), (None, "all images"))),
    *(Measure(name, functools.partial(lambda e, function: function(e.test_logits, e.test_labels, e.forget), function=function), "", "percent",
              f"Out of distribution, by {words}", f"AUC of {words}",
              f"Area under the ROC curve of {words}, erased against all other test images; 50 % is chance.",
              "[`energy_auroc`][delete_jax.metrics.energy_auroc], after Liu et al. (NeurIPS 2020, arXiv 2010.03759), and "
              "[`max_logit_auroc`][delete_jax.metrics.max_logit_auroc]. A network never taught the class is above 50 %, too: best is near the retrained network's value.")
      for name, function, words in (("energy_auroc", audits.energy_auroc, "the energy"), ("max_logit_auroc", audits.max_logit_auroc, "the largest logit"))),
    Measure("steered_acc", before(_steered), "", "percent",
            "Accuracy after steering the features", "forgotten, steered",
            "Erased test images predicted as their own class when the original's direction of the class is added to their features.",
            "The direction is the original's [`steering_vector`][delete_jax.metrics.steering_vector], from up to 256 training images each of "
            "the class and of all others. It is added once to the inputs of the last layer. A network with the original's features, whose "
            "last layer still has the class, predicts it again. With other initial weights, features have other axes, where it need not mean anything."),
)  # fmt: skip


def _gap(row: Measure) -> Measure:
    """An attack's difference to the retrained network."""

    def function(evidence: Any, retrained: Any) -> float | None:
        here, there = row.function(evidence), row.function(retrained)
        return None if here is None or there is None else here - there

    return Measure(
        f"{row.name}_gap", beside(function), "retrained", "points",
        f"{row.title}: gap to retrained", f"{row.short}: gap to retrained",
        "The value minus the retrained network's. Below 0 is another trace of the class, not a better result.",
    )  # fmt: skip


GAPS = {row.name: _gap(row) for row in ATTACKS}


def with_gaps(names: Iterable[str]) -> tuple[str, ...]:
    """Adds, after each attack, the name of its gap to the retrained network. No name occurs twice.

    Args:
      names: of measures: one, or several.
    """
    found = (part for name in listed(names, "names") for part in (name, *([GAPS[name].name] if name in GAPS else [])))
    return tuple(dict.fromkeys(found))


LEFT = (
    *(part for row in ATTACKS for part in (row, GAPS[row.name])),
    Measure("acc_old_statistics", lambda e: e.old_statistics_accuracy, "down", "percent",
            "Accuracy with the original's running statistics", "forgotten, original's statistics",
            "Erased test images predicted as their own class with the original's running statistics put back.",
            "All variables but the parameters (the running statistics of batch normalisation) are the original's. If the value is high, the "
            "class was not erased from the weights: the statistics hide it, and whoever estimates them again on other images brings it back. "
            "It is not measured without running statistics, or where they are the original's, as after unlearning with frozen ones."),
    Measure("residual_knowledge", beside(_knowledge_ratio), "", "times",
            "Accuracy on perturbed images, over retrained", "perturbed accuracy / retrained",
            "Share of perturbed erased images still recognised, divided by the retrained network's; not shown if that is 0.",
            "The ratio of `acc_ft_perturbed`, after Hsu et al. (NeurIPS 2025, arXiv 2601.22359); 1 is the value after retraining. A "
            "retrained network hardly ever predicts the class: where it never does, read `acc_ft_perturbed` and its gap."),
    Measure("over_unlearning", before(lambda e, o: residual.over_unlearning(o.perturbed_logits, e.perturbed_logits, e.gone)), "", "number",
            "Over-unlearning near the erased images", "OU@0.03",
            "Total variation distance, on perturbed erased images, to the original's prediction without the erased classes; 0 to 1.",
            "OU@ε after Ha et al. (ICML 2026, arXiv 2506.01318), with ε = 0.03: [`over_unlearning`][delete_jax.metrics.over_unlearning] on "
            "the images of `acc_ft_perturbed`, where Ha et al. keep only those near the original's decision boundary. The original's own "
            "value is its mean probability of the erased classes. DELETE trains towards 0, with `neighbours` on such images, so a low value "
            "shows that this target was met; the retrained network's shows whether it is the right one."),
    Measure("nearest_class", _nearest, "up", "percent",
            "Accuracy on the nearest class", "nearest class, test",
            "Test accuracy on the remaining class that the retrained network predicts most often for the erased classes.",
            "Damage shows first in the class that resembles the erased one. It is chosen over the erased classes' test images together; the "
            "report names it, `report.json` under `nearest_class`. Without a retrained network it is not measured."),
    Measure("relearn_steps", before(_relearn_steps), "", "count",
            "Steps to relearn half", "steps to relearn half",
            "Steps of fine-tuning on ten images per class until half the original's accuracy on the class is back."),
    Measure("cka_original", before(lambda e, o: representation.linear_cka(e.erased_features, o.erased_features)), "", "number",
            "CKA of features to the original", "CKA to original",
            "Similarity of the features of erased test images to the original's, up to rotation and scale; 0 to 1."),
    Measure("cka_retrained", beside(lambda e, r: representation.linear_cka(e.erased_features, r.erased_features)), "up", "number",
            "CKA of features to the retrained network", "CKA to retrained",
            "The same similarity to the retrained network's features."),
    Measure("head_norm", lambda e: _head(e, 0), "", "number", "Rank of the class's row in the last layer", "rank of row norm",
            "Rank of the norm of the erased class's row among all classes, from 0 (smallest) to 1."),
    Measure("head_bias", lambda e: _head(e, 1), "", "number", "Rank of the class's bias", "rank of bias",
            "The same rank for its bias."),
    Measure("class_rank", before(_class_rank), "down", "percent",
            "Erased class named from the last layer", "class named from the last layer",
            "Erased classes that someone names who sees only the last layer's weights; over requests and seeds, how often that succeeds.",
            "[`class_rank`][delete_jax.metrics.class_rank] with the original's layer. Classes that an earlier request erased are not named."),
    Measure("class_rank_chance", _class_rank_chance, "", "percent", "The same by guessing", "by guessing",
            "The share of erased classes among all."),
    *(Measure(f"quantised_acc_int{bits}", _changed(bits=bits), "down", "percent",
              f"Accuracy with weights of {bits} bits", f"forgotten, int{bits}",
              f"Erased test images predicted as their own class again with weights rounded to {bits}-bit integers.",
              "[`quantised`][delete_jax.metrics.quantised]; activations are not rounded.")
      for bits in (8, 4)),
    *(Measure(f"pruned_acc_{percent}", _changed(share=percent / 100), "down", "percent",
              f"Accuracy without {percent} % of the weights", f"forgotten, {percent} % pruned",
              f"Erased test images predicted as their own class again with the smallest {percent} % of the weights set to 0.",
              "[`pruned`][delete_jax.metrics.pruned]; nothing is trained afterwards.")
      for percent in (10, 30, 50)),
    Measure("cmia", lambda e: e.class_membership, "down", "percent",
            "Told from retrained networks", "told from retrained",
            "Accuracy of an attack that tells the network from retrained ones by its predictions for erased images; 50 % is chance, and best.",
            "[`class_membership`][delete_jax.metrics.class_membership] on up to 300 test images of each erased class, probabilities to six "
            "decimals; mean over the classes. The floor is a retrained network's value against the others. At least "
            f"{audits.LEAST_RETRAINED} retrained networks are needed (`retrained=` of `delete_jax.evaluate`)."),
    Measure("nearest_loss", before(_nearest_loss), "down", "points",
            "Largest loss of a remaining class", "largest loss of a class",
            "Largest loss of test accuracy of a remaining class since the original; `report.json` names it under `most_lost`.",
            "The average over the classes hides it. Below 0, every class gained. Of few test images, a few are a large loss."),
)  # fmt: skip
