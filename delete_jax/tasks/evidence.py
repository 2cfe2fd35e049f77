"""What measures read of a network that has one answer per image: computed when it is first read, and once."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple, TypeVar

import flax.linen as nn
import jax
import numpy as np

from delete_jax import metrics, models
from delete_jax.data.dataset import Dataset, Split, forget_remain, take
from delete_jax.job import Job
from delete_jax.loop import one
from delete_jax.methods import REMAIN, Setup, finetune
from delete_jax.methods.attacks import jitter
from delete_jax.methods.classifier import Classifier
from delete_jax.methods.features import beside_logits, find_head
from delete_jax.metrics.audits import LEAST_RETRAINED
from delete_jax.model import Model, Variables, have_same_values, with_statistics
from delete_jax.non_finite import NonFiniteError
from delete_jax.options import Options
from delete_jax.parallel import run_key
from delete_jax.predict import input_shape, make_predictor
from delete_jax.result import Result, Watch
from delete_jax.streams import split_streams
from delete_jax.tasks.base import ORIGINAL, RETRAINED, UNLEARNED, Data, Run

SHADOW_SAMPLES, PROBE_SAMPLES, FEW, KERNEL_IMAGES = 1000, 5000, 10, 8
STEERING, JUDGED = 256, 300  # training images that make the direction of a class; test images that tell networks apart
EPSILON, PERTURBED = 0.03, 3  # noise as a fraction of the pixels' span, and how many perturbed images are made of each
RELEARN_STEPS, RELEARN_LR, RELEARN_ASKED = 50, 1e-3, 256


def probabilities(logits: np.ndarray) -> np.ndarray:
    """Computes the softmax over the last axis in float64, stored as float32: `[n, k]`."""
    from scipy.special import softmax

    return softmax(logits.astype(np.float64), axis=-1).astype(np.float32)


def without_classes(dataset: Dataset, classes: Sequence[int]) -> Dataset:
    """A dataset without the samples of some classes, which keep their numbers."""
    if not classes:
        return dataset
    kept = [forget_remain(split, classes)[1] for split in (dataset.train, dataset.validation, dataset.test)]
    return dataclasses.replace(dataset, train=kept[0], validation=kept[1], test=kept[2])


class Subject(NamedTuple):
    """What evidence is read from, beside a network's variables. A `Run` has the same fields.

    model, preprocess: the network, and the function from stored images to its input.
    data: the samples and the request.
    module, network: the Linen module and its row of the table. Without them, features are read through the classifier's kernel
      (`methods.features`), which works for a network of any framework.
    """

    model: Model
    preprocess: Callable
    data: Data
    module: Any = None
    network: Any = None


class Evidence:
    """One network's answers and features, as the rows of `metrics.MEASURES` read them.

    run: what else the evidence is read from: a `Run`, or a `Subject`.
    forget, remain: the classes of the request, and those that no request has erased.
    before: the classes that earlier requests erased. Their samples are in `confusion_before` alone: no other measure reads them.
    gone: the classes of `forget` and `before`, with which nothing should be predicted.
    train, test: probabilities float32 `[n, k]` on training and test samples, without augmentation.
    train_confusion, confusion: counts int64 `[k, k]` of the same.
    original, retrained: the evidence on these networks; None where there is none, or where it is this one.
    reference: the evidence on the retrained network, also where it is this one; None where there is none.
    seconds: what training or unlearning took.
    seeds: networks that were retrained with other seeds, which the evidence on the original has; none where they are not known.
    """

    seeds: Sequence[Result] = ()

    def __init__(
        self, run: Run | Subject, result: Result, original: Evidence | None = None, retrained: Evidence | None = None
    ):
        self.run, self.result, self.original, self.retrained = run, result, original, retrained
        self.reference = retrained
        self.forget = list(run.data.forget)
        self.before = list(run.data.erased) if self.forget else []  # where samples are forgotten, all classes stay
        self.gone = self.forget + self.before
        self.dataset: Dataset = without_classes(run.data.dataset, self.before)
        self.remain = [class_ for class_ in range(self.dataset.num_classes) if class_ not in self.gone]
        self.test_labels, self.train_labels = self.dataset.test.labels, self.dataset.train.labels
        self.seconds = result.seconds or None
        self._few_labels: dict[int, tuple[float, float]] = {}

    @property
    def first(self) -> Evidence:
        """The evidence on the original network, which may be this one."""
        return self.original or self

    # ---- what it answers

    @functools.cached_property
    def train(self) -> np.ndarray:
        return probabilities(self._logits(self.dataset.train.images))

    @functools.cached_property
    def test(self) -> np.ndarray:
        return probabilities(self.test_logits)

    @functools.cached_property
    def test_logits(self) -> np.ndarray:
        return self._logits(self.dataset.test.images)

    def _logits(self, images: np.ndarray, variables: Variables | None = None) -> np.ndarray:
        """The logits of this network; or of one with other variables."""
        predict = make_predictor(self.run.model, self.run.preprocess)
        return predict(self.result.variables if variables is None else variables, images)

    @functools.cached_property
    def confusion(self) -> np.ndarray:
        return metrics.confusion_matrix(self.test_labels, self.test.argmax(-1), self.dataset.num_classes)

    @functools.cached_property
    def train_confusion(self) -> np.ndarray:
        return metrics.confusion_matrix(self.train_labels, self.train.argmax(-1), self.dataset.num_classes)

    @functools.cached_property
    def confusion_before(self) -> np.ndarray:
        """Counts int64 `[k, k]` on the test samples of classes that earlier requests erased."""
        if not self.before:
            return np.zeros_like(self.confusion)
        images, labels = forget_remain(self.run.data.dataset.test, self.before)[0]
        answers = self._logits(images).argmax(-1)
        return metrics.confusion_matrix(labels, answers, self.dataset.num_classes)

    @property
    def erased_test(self) -> np.ndarray:
        """Which test samples are of an erased class: bool `[n]`."""
        return np.isin(self.test_labels, self.forget)

    @functools.cached_property
    def old_statistics_accuracy(self) -> float | None:
        """Accuracy on the erased test samples with the original's running statistics beside this network's parameters; None where
        there is no other network before it, or its statistics are the same."""
        chosen = self.erased_test
        return self.with_old_statistics(self.dataset.test.images[chosen], self.test_labels[chosen])

    def with_old_statistics(self, images: np.ndarray, labels: np.ndarray) -> float | None:
        """Accuracy of the network with these statistics put back on some samples; None as above, or for no samples."""
        old = self.original and with_statistics(self.result.variables, self.original.result.variables)
        return float(np.mean(self._logits(images, old).argmax(-1) == labels)) if old and len(labels) else None

    def changed_accuracy(self, change: Callable[[Any], Any]) -> float | None:
        """Measures the accuracy on the erased test samples with other parameters, `change(params)`; None where the predictions of such a
        network are not finite, or there are no samples."""
        variables = {**self.result.variables, "params": change(self.result.variables["params"])}
        labels = self.test_labels[self.erased_test]
        try:
            answers = self._logits(self.dataset.test.images[self.erased_test], variables).argmax(-1)
        except NonFiniteError:
            return None
        return float(np.mean(answers == labels)) if len(labels) else None

    @functools.cached_property
    def seed_answers(self) -> list[np.ndarray]:
        """Probabilities float `[m, k]` of each of the networks retrained with other seeds on the erased test samples."""
        if self.first is not self:
            return self.first.seed_answers
        images = self.dataset.test.images[self.erased_test]
        return [probabilities(self._logits(images, network.variables)) for network in self.seeds]

    @property
    def class_membership(self) -> float | None:
        """How well it is told from networks retrained with other seeds, averaged over the erased classes; None where they are too few."""
        seeds = self.first.seeds
        others = [i for i, one in enumerate(seeds) if not have_same_values(one.variables, self.result.variables)]
        if len(seeds) < LEAST_RETRAINED or len(others) < 2:
            return None
        own, labels = self.probabilities("forget"), self.test_labels[self.erased_test]
        by_class = [np.flatnonzero(labels == class_)[:JUDGED] for class_ in self.forget]
        answers = ((own[some], [self.seed_answers[i][some] for i in others]) for some in by_class)
        return float(np.mean([metrics.class_membership(*both, self.gone) for both in answers]))

    @property
    def absorbed_by(self) -> np.ndarray:
        """Where the erased test samples go: fractions float64 `[k]`."""
        return metrics.absorbed_by(self.confusion, self.forget)

    @property
    def forget_mass(self) -> float:
        """Mean probability on the erased classes over their test samples."""
        return metrics.arguments.mean(self.test[self.erased_test][:, self.gone].sum(-1))

    @functools.cached_property
    def perturbed_logits(self) -> np.ndarray:
        """Logits `[3 n, k]` on the `n` erased test images, each perturbed three times: alike for every network."""
        images = np.concatenate([self.dataset.test.images[self.erased_test]] * PERTURBED)
        keys = jax.random.split(jax.random.key(0), len(images))
        return self._logits(np.asarray(jitter(EPSILON)(images, keys)))

    @property
    def perturbed_accuracy(self) -> float:
        """Accuracy on those images."""
        labels = np.concatenate([self.test_labels[self.erased_test]] * PERTURBED)
        return float(np.mean(self.perturbed_logits.argmax(-1) == labels)) if len(labels) else float("nan")

    @property
    def nearest_class(self) -> int | None:
        """The remaining class that the retrained network predicts most often for the erased test images."""
        return None if self.reference is None else metrics.nearest_class(self.reference.confusion, self.forget)

    def probabilities(self, part: str) -> np.ndarray:
        """Returns the probabilities on the test samples of the "forget" or of the "remain" classes."""
        return self.test[self.erased_test if part == "forget" else ~self.erased_test]

    @functools.cached_property
    def attack(self) -> metrics.Attack:
        """Runs the membership attack on the confidence, erased training samples being judged."""
        hit = np.isin(self.train_labels, self.forget)
        return metrics.membership(
            self.train[~hit], self.train_labels[~hit], self.probabilities("remain"), self.test_labels[~self.erased_test],
            self.train[hit], self.train_labels[hit], most=SHADOW_SAMPLES,
        )["confidence"]  # fmt: skip

    # ---- what it knows

    def features(self, images: np.ndarray) -> np.ndarray:
        """Computes what enters the classifier: float `[n, d]`.

        Raises:
          ValueError: the network's classifier cannot be found.
        """
        if isinstance(self.run.module, nn.Module):
            model = models.features(self.run.module, self.run.network.classifier)
            return make_predictor(model, self.run.preprocess)(self.result.variables, images)
        model = beside_logits(self.run.model, self.kernel)
        return make_predictor(model, self.run.preprocess)(self.result.variables, images)[:, self.dataset.num_classes :]

    @functools.cached_property
    def kernel(self) -> Classifier:
        """Finds the classifier's kernel in the original network.

        Raises:
          ValueError: it cannot be found, or the logits are something else than features times a kernel plus a bias.
        """
        if self.first is not self:
            return self.first.kernel
        streams = {REMAIN: {"image": np.asarray(self.dataset.train.images[:KERNEL_IMAGES])}}
        setup = Setup(
            self.run.model, self.result.variables, self.run.preprocess, streams, self.dataset.num_classes, (), run_key(0),
            classifier=self.run.model.classifier,
        )  # fmt: skip
        return find_head(setup).classifier

    @property
    def channels(self) -> int:
        """The axis of the output channels in the network's weights: that of the classes in its classifier."""
        return -1 if isinstance(self.run.module, nn.Module) else self.kernel.axis

    @functools.cached_property
    def steering(self) -> dict[int, np.ndarray]:
        """The direction of each erased class in the features: float64 `[d]`, from some training samples of it and of all others."""
        order = np.random.default_rng(0).permutation(len(self.train_labels))
        found = {}
        for class_ in self.forget:
            own = self.train_labels[order] == class_
            some = np.concatenate([order[own][:STEERING], order[~own][:STEERING]])
            if 0 < own.sum() < len(own):
                features = self.features(self.dataset.train.images[some])
                found[class_] = metrics.steering_vector(features, self.train_labels[some], class_)
        return found

    @functools.cached_property
    def train_features(self) -> np.ndarray:
        return self.features(self.dataset.train.images)

    @functools.cached_property
    def test_features(self) -> np.ndarray:
        return self.features(self.dataset.test.images)

    @property
    def erased_features(self) -> np.ndarray:
        return self.test_features[self.erased_test]

    @functools.cached_property
    def probe(self) -> float:
        """Measures the accuracy on erased test samples of a linear probe, taught on some training samples of all classes."""
        some = np.random.default_rng(0).permutation(len(self.train_labels))[:PROBE_SAMPLES]
        features, labels = self.features(self.dataset.train.images[some]), self.train_labels[some]
        return metrics.linear_probe(features, labels, self.test_features, self.test_labels, self.forget)

    def few_labels(self, per_class: int) -> tuple[float, float]:
        """Measures the accuracy on erased and on other test samples of probes taught on so many of each class; NaN if there is only one."""
        if len(np.unique(self.train_labels)) < 2:
            return np.nan, np.nan
        if per_class not in self._few_labels:
            draws = metrics.draw_few(self.train_labels, per_class)
            drawn = np.unique(np.concatenate(draws))  # nothing else is computed
            self._few_labels[per_class] = metrics.few_label_probe(
                self.features(self.dataset.train.images[drawn]), self.train_labels[drawn], self.test_features,
                self.test_labels, self.forget, [np.searchsorted(drawn, draw) for draw in draws],
            )  # fmt: skip
        return self._few_labels[per_class]

    @functools.cached_property
    def few_features(self) -> np.ndarray:
        """Features of the first few training samples of the erased classes."""
        return self.features(self.dataset.train.images[self._few])

    @property
    def _few(self) -> np.ndarray:
        return np.concatenate([np.flatnonzero(self.train_labels == class_)[:FEW] for class_ in self.forget])

    @functools.cached_property
    def classifier(self) -> tuple[np.ndarray, np.ndarray] | None:
        """Returns the last layer's kernel `[d, k]` and bias `[k]`; None where it is no matrix."""
        if not isinstance(self.run.module, nn.Module):
            images = self.dataset.train.images[:KERNEL_IMAGES]
            rows = np.asarray(self.kernel.rows(self.result.variables["params"]), np.float64)
            return rows, (self._logits(images) - self.features(images) @ rows).mean(0)
        layer: Any = self.result.variables["params"]
        for key in self.run.network.path:
            layer = layer[key]
        kernel = np.asarray(layer["kernel"])
        kernel = kernel.reshape(-1, kernel.shape[-1]) if kernel.size == kernel.shape[-1] * kernel.shape[-2] else kernel
        return (kernel, np.asarray(layer.get("bias", np.zeros(kernel.shape[-1])))) if kernel.ndim == 2 else None

    def layer(self, name: str) -> np.ndarray:
        """Computes a layer's output on the erased test samples, averaged over positions: float `[n, d]`."""
        predict = make_predictor(models.layer_output(self.run.module, name), self.run.preprocess)
        return predict(self.result.variables, self.dataset.test.images[self.erased_test])

    @functools.cached_property
    def relearned(self) -> tuple[list[float], list[int]]:
        """Accuracies on erased test samples and the steps at which they hold: fine-tuning on ten samples of each erased
        class, statistics frozen."""
        asked = np.flatnonzero(self.erased_test)[:RELEARN_ASKED]
        images, labels = self.dataset.test.images[asked], self.test_labels[asked]
        few, split = self._few, self.dataset.train
        streams = split_streams(split.images[few], split.labels[few], (), self.dataset.num_classes, [REMAIN])
        options = Options(
            epochs=RELEARN_STEPS, lr=RELEARN_LR, batch_size=len(few), batch_norm="frozen", preprocess=self.run.preprocess,
            parallel="jit",
        )  # fmt: skip
        predict = make_predictor(self.run.model, self.run.preprocess)
        job = Job(self.run.model, self.result.variables, streams, self.dataset.num_classes, (), finetune(), options)
        fitted = one(
            job, Watch(lambda variables: {"acc": float(np.mean(predict(variables, images).argmax(-1) == labels))})
        )
        return [row["acc"] for row in fitted.evaluations], [row["step"] for row in fitted.evaluations]


EvidenceT = TypeVar("EvidenceT", bound=Evidence)


def side_by_side(run: Run | Subject, networks: dict[str, Result], kind: type[EvidenceT]) -> dict[str, EvidenceT]:
    """Collects the evidence, of some kind, on every network of a report, each beside the original and the retrained one."""
    found = {name: kind(run, result) for name, result in networks.items()}
    for evidence in found.values():
        others = {name: other for name, other in found.items() if other is not evidence}
        evidence.original, evidence.retrained = others.get("original"), others.get("retrained")
        evidence.reference = found.get("retrained")
    return found


def try_measures(run: Run, variables: Variables | None, names: Iterable[str], kind: type[Evidence] = Evidence) -> None:
    """Computes measures of a network that need not be trained, on a few samples, to find those that fail before the training.

    Args:
      run: with all its data.
      variables: the network's; those of an untrained one where None.
      names: of measures. kind: of the evidence that they read.

    Raises:
      ValueError: one fails, or returns no number; names it.
    """
    dataset = run.data.dataset
    others = [class_ for class_ in range(dataset.num_classes) if class_ not in run.data.gone]

    def few(split: Split) -> Split:
        rows = [np.flatnonzero(split.labels == class_)[:FEW] for class_ in (*run.data.gone, *others[:FEW])]
        return take(split, np.sort(np.concatenate(rows)))

    if variables is None:
        size = input_shape(run.preprocess, dataset.train.images)
        variables = models.init(run.module, size, run.config.seed)
    cut = dataclasses.replace(dataset, train=few(dataset.train), test=few(dataset.test))
    shown = (ORIGINAL, RETRAINED, UNLEARNED) if run.config.retrain else (ORIGINAL, UNLEARNED)
    alike = dict.fromkeys(shown, Result(variables, [], [], seconds=1.0))
    for evidence in side_by_side(run._replace(data=run.data._replace(dataset=cut)), alike, kind).values():
        try:
            metrics.measure(evidence, names)
        except ValueError as error:
            raise ValueError(f"config.task.measures: {error}") from error
