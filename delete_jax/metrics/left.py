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
            "Area under the ROC curve of the probability left on the erased classes: their test images against all others; 50 % is chance.",
            "The score of a test image is the probability that the network gives to the erased classes together. The area under the "
            "ROC curve, with the erased classes' images as positives, is the share of pairs of an erased and another image in which "
            "the erased one scores higher; ties count half. Far below 50 %, the reversed order gives the class away."),
    Measure("acc_ft_perturbed", lambda e: e.perturbed_accuracy, "down", "percent",
            "Accuracy, perturbed test images", "forgotten, perturbed test",
            "Slightly perturbed test images of the erased class that are still predicted as their own class.",
            "Each test image of an erased class is perturbed three times: every pixel moves by uniform noise of up to ε = 0.03 of the "
            "pixels' span (255 for bytes) and stays within the span. The noise is drawn from a fixed seed and is the same for every network."),
    Measure("probe", lambda e: e.probe, "", "percent",
            "Linear probe", "probe on features, forgotten",
            "Test images of the erased classes that a logistic regression on the features predicts correctly; it is trained on all classes."),
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
           "Erased test images that a logistic regression on the features predicts correctly; it is trained on so few images; mean over draws.",
           "A linear probe (arXiv 1610.01644): multinomial logistic regression with L2 penalty, C = 1, on the standardised inputs of "
           "the last layer. It is trained on this number of labelled training images of each class, including the erased classes, or on all "
           "images of a class that has fewer. The value is its accuracy on the erased classes' test images, averaged over five draws from a "
           "fixed seed; `_others` is its accuracy on all other test images."),
          (1, "_others", "other images", "remaining", "The same for test images of the remaining classes; worse features lower both values.", ""),
      )),
    *(Measure(f"shots_{shots or 'all'}", functools.partial(_shots, shots=shots), "", "percent",
              f"Nearest prototype, {words}", f"prototype, {words}",
              "Erased test images whose nearest prototype, by the cosine of centred features, is the mean of so many images of their own class.")
      for shots, words in ((1, "one image"), (5, "five images"), (None, "all images"))),
    *(Measure(name, functools.partial(lambda e, function: function(e.test_logits, e.test_labels, e.forget), function=function), "", "percent",
              f"Out of distribution, by {words}", f"AUC of {words}",
              f"Area under the ROC curve of {words}: erased test images, taken for out of distribution, against all others; 50 % is chance.",
              "The energy is −log Σ exp(logits), after the detector of Liu et al. (NeurIPS 2020, arXiv 2010.03759); the largest logit is "
              "counted with its sign reversed. The value is the share of pairs of an erased and another test image in which the erased one has the "
              "higher score; ties count half. A network that was never taught the class meets it as out of distribution, and is above 50 %, too: "
              "near the retrained network's value is best.")
      for name, function, words in (("energy_auroc", audits.energy_auroc, "the energy"), ("max_logit_auroc", audits.max_logit_auroc, "the largest logit"))),
    Measure("steered_acc", before(_steered), "", "percent",
            "Accuracy after steering the features", "forgotten, steered",
            "Erased test images predicted as their own class when the original's direction of the class is added to their features.",
            "The direction is the mean feature of the class minus the mean feature of all other classes, both in the original network, from up to "
            "256 training images each. It is added once to the features of each erased test image, the inputs of the last layer, and the last layer "
            "predicts. A network whose features are the original's, and whose last layer still has the class, predicts it again. Features of "
            "a network that was trained from other initial weights have other axes, and the direction need not mean anything there."),
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
            "Test images of the erased classes predicted as their own class when the original's running statistics are put back.",
            "The network keeps its parameters, and every other collection of its variables (the running statistics of batch normalisation) is "
            "replaced by the original's. The value is `acc_ft` of that network. If it is high, the class was not erased from the weights: the "
            "running statistics hide it, and whoever estimates them again on other images brings it back. It is not measured for a network "
            "without running statistics, or whose statistics are the original's, as after unlearning with frozen statistics."),
    Measure("residual_knowledge", beside(_knowledge_ratio), "", "times",
            "Accuracy on perturbed images, over retrained", "perturbed accuracy / retrained",
            "Share of perturbed erased images that the network recognises, divided by the retrained network's share; not shown if that is 0.",
            "The ratio of `acc_ft_perturbed` to the retrained network's value on the same images, after Hsu et al. (NeurIPS 2025, "
            "arXiv 2601.22359); 1 is the value after retraining. A network that was retrained without a class hardly ever predicts it. If its "
            "share is 0, there is no ratio: read `acc_ft_perturbed` and its gap instead."),
    Measure("over_unlearning", before(lambda e, o: residual.over_unlearning(o.perturbed_logits, e.perturbed_logits, e.gone)), "", "number",
            "Over-unlearning near the erased images", "OU@0.03",
            "Total variation distance, on perturbed erased images, to the original's prediction without the erased classes; 0 to 1.",
            "OU@ε after Ha et al. (ICML 2026, arXiv 2506.01318), with ε = 0.03: the mean of ½ Σ |p − q| over the perturbed images of "
            "`acc_ft_perturbed`. p is the softmax of the original with the erased classes' logits at −∞, q the softmax of this network. Ha et al. "
            "keep only perturbed images near the original's decision boundary; here all of them count. The original's own value is the mean "
            "probability that it gives to the erased classes. DELETE trains towards 0, with `neighbours` on such perturbed images, "
            "so a low value shows that this target was met; the retrained network's value shows whether it is the right one."),
    Measure("nearest_class", _nearest, "up", "percent",
            "Accuracy on the nearest class", "nearest class, test",
            "Test accuracy on the remaining class that the retrained network predicts most often for the erased classes.",
            "Damage from erasing a class shows first in the class that resembles it. The nearest class is the remaining class that the "
            "retrained network predicts most often for the erased classes' test images, taken together. `report.json` names it under "
            "`nearest_class`, and so does the report. Without a retrained network it is not measured."),
    Measure("relearn_steps", before(_relearn_steps), "", "count",
            "Steps to relearn half", "steps to relearn half",
            "Steps of fine-tuning on ten images per class until half of the original's accuracy on the class is back."),
    Measure("cka_original", before(lambda e, o: representation.linear_cka(e.erased_features, o.erased_features)), "", "number",
            "CKA of features to the original", "CKA to original",
            "Similarity of the features of erased test images to the original's, up to rotation and scale; 0 to 1."),
    Measure("cka_retrained", beside(lambda e, r: representation.linear_cka(e.erased_features, r.erased_features)), "up", "number",
            "CKA of features to the retrained network", "CKA to retrained",
            "The same similarity to the features of a network that never saw the class."),
    Measure("head_norm", lambda e: _head(e, 0), "", "number", "Rank of the class's row in the last layer", "rank of row norm",
            "Rank of the norm of the erased class's row among all classes: 0 is the smallest, 1 the largest."),
    Measure("head_bias", lambda e: _head(e, 1), "", "number", "Rank of the class's bias", "rank of bias",
            "The same rank for its bias."),
    Measure("class_rank", before(_class_rank), "down", "percent",
            "Erased class named from the last layer", "class named from the last layer",
            "Erased classes that someone names who sees only the weights of the last layer; over requests and seeds, how often the attack succeeds.",
            "Classes are ranked by how far they stand out in the last layer: the largest of |x − median| / median |x − median| over the norm x of the "
            "class's row, its bias, and the norm of its change since the original. Differences below 10⁻⁴ of the rows' median norm count as "
            "none. The attacker names as many classes as were erased, the first in this order, and any of those that are equal. The value is the "
            "share of the erased classes among them; `class_rank_chance` is that of guessing. Classes that an earlier request erased are not named."),
    Measure("class_rank_chance", _class_rank_chance, "", "percent", "The same by guessing", "by guessing",
            "The number of erased classes divided by the number of classes."),
    *(Measure(f"quantised_acc_int{bits}", _changed(bits=bits), "down", "percent",
              f"Accuracy with weights of {bits} bits", f"forgotten, int{bits}",
              f"Erased test images predicted as their own class after the weights were rounded to {bits}-bit integers. High: the class comes back.",
              "A weight w becomes s · round(w / s), where s is the largest |w| of its output channel divided by 127 (int8) or 7 (int4): symmetric, "
              "per channel. Only weights with more than one axis are rounded; activations are not.")
      for bits in (8, 4)),
    *(Measure(f"pruned_acc_{percent}", _changed(share=percent / 100), "down", "percent",
              f"Accuracy without {percent} % of the weights", f"forgotten, {percent} % pruned",
              f"Erased test images predicted as their own class after the smallest {percent} % of the weights were set to 0. High: the class comes back.",
              "The weights of the smallest magnitude are set to 0, a share of all weights of all layers together. Only weights with more than one axis "
              "count. Nothing is trained afterwards.")
      for percent in (10, 30, 50)),
    Measure("cmia", lambda e: e.class_membership, "down", "percent",
            "Told from retrained networks", "told from retrained",
            "Accuracy of an attack that tells the network from retrained ones by its predictions for erased images; 50 % is chance, and best.",
            "For each erased class, a support vector machine (RBF kernel, C = 1, balanced classes) reads the probabilities that go to the other "
            "classes, to six decimals, on up to 300 test images of the class. It learns to tell this network's from those of networks that were retrained without "
            "the class with other seeds, all but one, on every other image. The value is its balanced accuracy on the remaining images, of this network and of "
            "the retrained one that was left out, averaged over the networks that are left out, both halves of the images, and the erased classes. A "
            f"retrained network is compared with the others; its value is the floor. At least {audits.LEAST_RETRAINED} retrained networks are needed "
            "(`retrained=` of `delete_jax.evaluate`)."),
    Measure("nearest_loss", before(_nearest_loss), "down", "points",
            "Largest loss of a remaining class", "largest loss of a class",
            "Test accuracy that the remaining class lost that lost most, since the original; `report.json` names it under `most_lost`.",
            "The largest difference of the test accuracy in the original and in this network over the remaining classes. The average over all of "
            "them hides such a loss. Below 0, every class gained. With few test images of a class, a few of them are a large loss."),
)  # fmt: skip
