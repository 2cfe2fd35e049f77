"""What metrics are given: one table of what each argument is, and the same mistakes in all of them."""

import functools
import inspect

import jax.numpy as jnp
import numpy as np
import pytest

from delete_jax import data, metrics
from delete_jax.metrics import arguments
from delete_jax.metrics.principal import choose_samples, principal_axes

K, N, D = 4, 24, 5
RNG = np.random.default_rng(0)
LABELS = np.arange(N) % K
PREDICTED = np.where(LABELS == 3, 0, LABELS)
LOGITS = (4 * np.eye(K)[PREDICTED] + RNG.normal(size=(N, K))).astype(np.float32)
PROBABILITIES = np.exp(LOGITS) / np.exp(LOGITS).sum(-1, keepdims=True)
FEATURES = (3 * np.eye(D)[LABELS] + RNG.normal(size=(N, D))).astype(np.float32)
MAPS = np.where(RNG.random((3, 4, 4)) < 0.2, 255, RNG.integers(0, K, (3, 4, 4))).astype(np.uint8)
CONFUSION = metrics.confusion_matrix(LABELS, PREDICTED, K)
MASK = np.arange(K) == 3  # of class 3 over the classes

# Kinds: "labels" and "known" (labels of a table with k columns, or beside num_classes), "classes" (numbers, unknown k) and
# "class of k", "probabilities", "scores", "answers" (scores or classes), "features", "counts", "number" (an integer), "fraction", "kernel", "bias", "values".
KNOWN = {"labels": (LABELS, "known"), "num_classes": (K, "number")}
PROBE = {
    "train_features": (FEATURES, "features"),
    "train_labels": (LABELS, "labels"),
    "test_features": (FEATURES, "features"),
    "test_labels": (LABELS, "labels"),
}
LAYER = {"kernel": (FEATURES[:D, :K], "kernel"), "bias": (FEATURES[0, :K], "bias")}
COUNTS = {"confusion": (CONFUSION, "counts")}
PAIR = {"p": (PROBABILITIES, "probabilities"), "q": (PROBABILITIES[::-1], "probabilities")}
SCORES = metrics.pair_scores(FEATURES, LABELS)
TABLE = {
    "absorbed_by": {**COUNTS, "forget": ([3], "class of k")},
    "accuracy": {**COUNTS, "classes": ([3], "class of k")},
    "agreement": {"p": (LOGITS, "answers"), "q": (PROBABILITIES, "answers")},
    "agreement_by_class": {**KNOWN, "predictions": (PREDICTED, "known"), "others": (LABELS, "known")},
    "aus": dict.fromkeys(("acc_rt", "acc_ft", "original_acc_rt"), (0.5, "fraction")),
    "centred_prototypes": {**PROBE, "forget": ([3], "classes"), "shots": (2, "number")},
    "class_membership": {
        "probabilities": (PROBABILITIES, "probabilities"), "retrained": ([PROBABILITIES] * 2, "other"), "forget": ([3], "class of k"),
    },
    "class_rank": {**LAYER, "forget": ([3], "class of k"), "known": ([1], "class of k")},
    "confusion_matrix": {**KNOWN, "predictions": (PREDICTED, "known")},
    "draw_few": {"labels": (LABELS, "labels"), "per_class": (2, "number")},
    "energy_auroc": {"logits": (LOGITS, "scores"), "labels": (LABELS, "known"), "forget": ([3], "class of k")},
    "entropy": {"p": (PROBABILITIES, "probabilities")},
    "equal_error_rate": {"scores": (SCORES, "other")},
    "few_label_probe": {**PROBE, "forget": ([3], "classes"), "draws": (metrics.draw_few(LABELS, 2, draws=1), "other")},
    "forget_remain_accuracy": {"answers": (PREDICTED, "labels"), "labels": (LABELS, "labels"), "forget": ([3], "classes")},
    "head_trace": {**LAYER, "forget": ([3], "class of k")},
    "hmean_drop": dict.fromkeys(("acc_rt", "acc_ft", "original_acc_ft"), (0.5, "fraction")),
    "hmean_residual": dict.fromkeys(("acc_rt", "acc_ft"), (0.5, "fraction")),
    "iou": COUNTS,
    "jensen_shannon": PAIR,
    "largest_loss": {**COUNTS, "original": (CONFUSION, "counts"), "classes": ([3], "class of k")},
    "linear_cka": {"a": (FEATURES, "features"), "b": (LOGITS, "features")},
    "linear_probe": {**PROBE, "classes": ([3], "classes")},
    "logit_confidence": {"logits": (LOGITS, "scores"), "labels": (LABELS, "known")},
    "max_logit_auroc": {"logits": (LOGITS, "scores"), "labels": (LABELS, "known"), "forget": ([3], "class of k")},
    "mean_iou": {**COUNTS, "classes": ([3], "class of k")},
    "membership": {
        f"{who}_{what}": (value, kind)
        for who in ("members", "nonmembers", "targets")
        for what, value, kind in (("p", PROBABILITIES, "probabilities"), ("y", LABELS, "known"))
    },
    "modified_entropy": {"p": (PROBABILITIES, "probabilities"), "labels": (LABELS, "known")},
    "nearest_class": {**COUNTS, "forget": ([3], "class of k")},
    "nearest_class_mean": {**PROBE, "classes": ([3], "classes")},
    "over_unlearning": {"original": (LOGITS, "scores"), "network": (LOGITS, "scores"), "forget": ([3], "class of k")},
    "pair_scores": {"features": (FEATURES, "features"), "identities": (LABELS, "labels")},
    "per_class": COUNTS,
    "predicted_fraction": {**COUNTS, "classes": ([3], "class of k")},
    "prototype_attack": {
        **LAYER, "prototype_features": (FEATURES, "features"), "class_": (3, "number"), "test_features": (FEATURES, "features"),
        "test_labels": (LABELS, "labels"),
    },
    "pruned": {"params": ({"w": FEATURES}, "other"), "share": (0.5, "fraction")},
    "quantised": {"params": ({"w": FEATURES}, "other"), "bits": (4, "number")},
    "rank_one": {"features": (FEATURES, "features"), "identities": (LABELS, "labels")},
    "relearn_steps": {
        "accuracies": (np.linspace(0, 1, N), "values"), "steps": (np.arange(N), "labels"), "original": (0.9, "fraction"),
    },
    "residual_auc": {
        "probabilities": (PROBABILITIES, "probabilities"), "labels": (LABELS, "known"), "forget": ([3], "class of k"),
    },
    "roc": {"scores": (SCORES, "other")},
    "steered_accuracy": {
        **LAYER, "features": (FEATURES, "features"), "labels": (LABELS, "labels"), "class_": (3, "number"), "vector": (FEATURES[0], "values"),
    },
    "steering_vector": {"features": (FEATURES, "features"), "labels": (LABELS, "labels"), "class_": (3, "number")},
    "total_variation": PAIR,
    "true_acceptance": {"scores": (SCORES, "other"), "false_acceptance": (0.1, "fraction")},
    "unlearned_likelihood_ratio": {
        "unlearned": ([[0.0, 1.0, 2.0]], "other"), "never": ([[3.0, 4.0, 2.0]], "other"),
    },
    "without_rows": {**COUNTS, "classes": ([3], "class of k")},
}  # fmt: skip
OTHER = {
    "MEASURES",
    "SHOWN",
    "VERIFIED",
    "Attack",
    "Measure",
    "Scores",
    "Separation",
    "look_up",
    "measure",
    "show",
    "with_gaps",
}


def nan(value):
    return np.where(np.arange(value.size).reshape(value.shape) == 1, np.nan, value)


ARRAYS = {
    "as a masked array": lambda value: np.ma.masked_array(value, np.zeros(np.shape(value), bool)),
    "a column": lambda value: np.asarray(value)[..., None],
    "truth values": lambda value: np.asarray(value) > 0,
    "text": lambda value: np.asarray(value).astype(str),
    "none": lambda value: None,
}
FLOATS = {"with a NaN": nan, "of too few samples": lambda value: value[:-1], "classes": lambda value: value.argmax(-1)}
LABEL = {
    "negative": lambda value: value - 1,
    "floats": lambda value: value.astype(float),
    "one-hot rows": lambda value: np.eye(K, dtype=int)[value % K],
}
CLASSES = {
    "a mask over classes": lambda value: MASK,
    "a mask over samples": lambda value: LABELS == 3,
    "a mask of JAX": lambda value: jnp.asarray(MASK),
    "a mask as a list": lambda value: MASK.tolist(),
    "a masked array": lambda value: np.ma.masked_array(value, [False]),
    "floats": lambda value: [3.0],
    "negative": lambda value: [-1],
    "a name": lambda value: "c",
    "a column": lambda value: np.asarray(value)[:, None],
}
BEYOND = {"out of range": lambda value: [K]}
NUMBER = {"a truth value": lambda value: True, "a float": lambda value: 2.5, "negative": lambda value: -1}
MISTAKES = {
    "labels": ARRAYS | LABEL,
    "known": ARRAYS | LABEL | {"out of range": lambda value: value + K},
    "classes": CLASSES,
    "class of k": CLASSES | BEYOND,
    "probabilities": ARRAYS
    | FLOATS
    | {"logits": lambda value: LOGITS, "percentages": lambda value: 100 * value, "log": np.log},
    "scores": ARRAYS | FLOATS,
    "answers": ARRAYS | {"with a NaN": nan, "of too few samples": lambda value: value[:-1]},
    "features": ARRAYS | FLOATS,
    "values": ARRAYS | {"with a NaN": nan, "of too few samples": lambda value: value[:-1]},
    "kernel": ARRAYS | {"with a NaN": nan, "of PyTorch": lambda value: value.T},
    "bias": ARRAYS | {"with a NaN": nan, "of too few classes": lambda value: value[:-1]},
    "counts": ARRAYS
    | {
        "negative": lambda value: value - 10,
        "rows": lambda value: value[:2],
        "with a NaN": nan,
        "labels": lambda value: LABELS,
    },
    "number": NUMBER,
    "fraction": {"a truth value": lambda value: True, "a percentage": lambda value: 50.0, "none": lambda value: None},
    "other": {"none": lambda value: None, "of truth values": lambda value: [MASK, MASK]},
}
ALONE = {("entropy", "p"), ("prototype_attack", "prototype_features")}  # nothing else is of the same samples
WRONG = [
    pytest.param(name, argument, make, id=f"{name}-{argument}-{mistake}")
    for name, given in TABLE.items()
    for argument, (_, kind) in given.items()
    for mistake, make in MISTAKES[kind].items()
    if mistake != "of too few samples" or (name, argument) not in ALONE
]


def call(name, **changed):
    return getattr(metrics, name)(**{key: value for key, (value, _) in TABLE[name].items()} | changed)


def assert_equal(found, expected):
    found, expected = (list(part.values()) if isinstance(part, dict) else part for part in (found, expected))
    if isinstance(found, (list, tuple)):
        for one, other in zip(found, expected, strict=True):
            assert_equal(one, other)
    else:
        np.testing.assert_allclose(np.asarray(found, float), np.asarray(expected, float), rtol=1e-5)


def test_every_metric_is_in_the_table():
    assert set(TABLE) | OTHER == set(metrics.__all__)
    for name, given in TABLE.items():
        needed = inspect.signature(getattr(metrics, name)).parameters.values()
        assert {part.name for part in needed if part.default is part.empty} <= set(given), name


@pytest.mark.parametrize(("name", "argument", "make"), WRONG)
def test_a_mistake_is_refused_in_one_line(name, argument, make):
    with pytest.raises(ValueError) as found:
        call(name, **{argument: make(TABLE[name][argument][0])})
    assert "\n" not in str(found.value)
    assert any(word in str(found.value) for word in (argument, "at least"))


@pytest.mark.parametrize("name", TABLE)
def test_what_other_libraries_give_is_read(name):
    """Arrays of JAX, lists, and classes as a set, a range or a single number have the value of NumPy's."""
    expected = call(name)
    for read in (jnp.asarray, lambda value: np.asarray(value).tolist()):
        arrays = {key: read(value) for key, (value, kind) in TABLE[name].items() if isinstance(value, np.ndarray)}
        assert_equal(call(name, **arrays), expected)
    for argument, (_, kind) in TABLE[name].items():
        if kind in ("classes", "class of k"):
            for same in (3, {3}, range(3, 4), (np.int64(3),), jnp.asarray([3]), [3, 3]):
                assert_equal(call(name, **{argument: same}), expected)


def test_numbers_that_are_easily_swapped_have_names():
    for call in (
        lambda: metrics.hmean_residual(0.9, 0.0),
        lambda: metrics.hmean_drop(0.9, 0.0, 0.9),
        lambda: metrics.aus(0.9, 0.0, 0.9),
        lambda: metrics.draw_few(LABELS, 1, 5),
        lambda: metrics.centred_prototypes(FEATURES, LABELS, FEATURES, LABELS, [3], 1),
    ):
        with pytest.raises(TypeError, match="positional"):
            call()


def test_predicted_classes_agree_as_classes():
    one, other = np.array([0, 1, 2, 3, 3, 2]), np.array([0, 1, 2, 3, 0, 0])
    assert metrics.agreement(one, other) == pytest.approx(4 / 6)
    assert metrics.agreement(MAPS, np.where(MAPS == 0, 1, MAPS)) == pytest.approx(np.mean(MAPS != 0))
    with pytest.raises(ValueError, match="p must be class numbers"):
        metrics.agreement(np.eye(4, dtype=int), np.eye(4, dtype=int))
    assert metrics.agreement(PREDICTED, LOGITS) == metrics.agreement(np.eye(K)[PREDICTED], LOGITS) > 0.5
    with pytest.raises(ValueError, match="same samples"):
        metrics.agreement(one, other[:5])
    with pytest.raises(ValueError, match="the same classes"):
        metrics.agreement(PROBABILITIES, PROBABILITIES[:, :3])


def test_half_precision_is_rounded_not_refused():
    for dtype in (jnp.float16, jnp.bfloat16):
        half = jnp.asarray(PROBABILITIES, dtype)
        assert metrics.entropy(half) == pytest.approx(metrics.entropy(PROBABILITIES), abs=0.05)
        as_single = np.asarray(half).astype(np.float32)  # of which nothing says that it was rounded
        assert metrics.total_variation(as_single, half) == 0


def test_unsigned_integers_do_not_wrap_around():
    one_hot = np.eye(K, dtype=np.uint8)
    assert metrics.total_variation(one_hot, one_hot[::-1]) == 1


def test_nothing_has_no_distance():
    none = np.zeros((0, K), np.float32)
    assert np.isnan(
        [metrics.total_variation(none, none), metrics.jensen_shannon(none, none), metrics.agreement(none, none)]
    ).all()
    assert np.isnan(metrics.absorbed_by(CONFUSION, ())).tolist() == [True] * K


def test_255_is_ignored_in_maps_alone():
    counts = metrics.confusion_matrix(MAPS, np.where(MAPS == 255, 0, MAPS), K)
    assert counts.tolist() == np.diag(np.bincount(MAPS[MAPS != 255], minlength=K)).tolist()
    with pytest.raises(ValueError, match="labels: there is no class 255: the classes are 0 to 3"):
        metrics.confusion_matrix(np.where(LABELS == 0, 255, LABELS), LABELS, K)
    with pytest.raises(ValueError, match="predictions: there is no class 255"):
        metrics.confusion_matrix(np.where(MAPS == 255, 0, MAPS), MAPS, K)
    with pytest.raises(ValueError, match="same samples"):
        metrics.forget_remain_accuracy(MAPS, MAPS[:, :2], [1])


def test_what_is_to_be_done_is_said():
    for values in (LOGITS, 2 * PROBABILITIES):
        with pytest.raises(ValueError, match="apply softmax first"):
            metrics.residual_auc(values, LABELS, [3])
    with pytest.raises(ValueError, match=r"np.flatnonzero\(mask\)"):
        metrics.accuracy(CONFUSION, MASK)
    with pytest.raises(
        ValueError, match=r"labels must be class numbers, integers \[n\], got int64 of shape \(24, 1\): take"
    ):
        metrics.residual_auc(PROBABILITIES, LABELS[:, None], [3])
    with pytest.raises(ValueError, match="forget has all 4 classes"):
        metrics.over_unlearning(LOGITS, LOGITS, range(K))
    with pytest.raises(ValueError, match="did you mean acc_ft"):
        metrics.measure(object(), "acc_fft")
    with pytest.raises(ValueError, match="unknown way to show a value 'per cent'"):
        metrics.show(0.5, "per cent")
    assert metrics.with_gaps("probe") == ("probe", "probe_gap")


NONE, NO_LABELS = FEATURES[:0], LABELS[:0]
EMPTY = {
    "no draws": (
        lambda: metrics.few_label_probe(*[FEATURES, LABELS] * 2, [3], []),
        "draws is empty: give at least one",
    ),
    "no draws, as an array": (
        lambda: metrics.few_label_probe(*[FEATURES, LABELS] * 2, [3], np.zeros((0, 3), int)),
        "draws is empty",
    ),
    "an empty draw": (
        lambda: metrics.few_label_probe(*[FEATURES, LABELS] * 2, [3], [[]]),
        "a draw has samples of fewer than two classes",
    ),
    "labels to draw from": (lambda: metrics.draw_few([], 1), "labels is empty"),
    "samples": (lambda: metrics.unlearned_likelihood_ratio([], []), "unlearned is empty"),
    "prototypes": (
        lambda: metrics.prototype_attack(np.ones((FEATURES.shape[1], K)), np.zeros(K), NONE, 3, FEATURES, LABELS),
        "prototype_features is empty",
    ),
    "pairs": (lambda: metrics.roc(metrics.pair_scores(NONE, NO_LABELS)), "0 genuine and 0 impostor pairs"),
    "impostors": (lambda: metrics.roc(metrics.pair_scores(FEATURES[:2], [1, 1])), "1 genuine and 0 impostor pairs"),
    "training features": (
        lambda: metrics.linear_probe(NONE, NO_LABELS, FEATURES, LABELS, [3]),
        "train_features is empty",
    ),
}


@pytest.mark.parametrize("name", EMPTY)
def test_nothing_to_measure_with_is_refused(name):
    measure, words = EMPTY[name]
    with pytest.raises(ValueError, match=words) as caught:
        measure()
    assert "\n" not in str(caught.value)


def test_a_class_that_nobody_was_taught_is_not_measured():
    """That an attacker does not recognise it would say that nothing is left of it. Beside one that was taught, that one counts."""
    taught = LABELS != 3
    known = (FEATURES[taught], LABELS[taught], FEATURES, LABELS)
    draws = metrics.draw_few(LABELS[taught], 2)
    for attack in (
        metrics.linear_probe,
        metrics.nearest_class_mean,
        functools.partial(metrics.centred_prototypes, shots=None),
        lambda *given: metrics.few_label_probe(*given, draws)[0],
    ):
        assert np.isnan(attack(*known, [3]))
        assert attack(*known, [2, 3]) == attack(*known, [2]) >= 0
    erased, others = metrics.few_label_probe(*known, [2], draws)
    assert (erased, others) == metrics.few_label_probe(*known[:2], FEATURES[taught], LABELS[taught], [2], draws)


@pytest.mark.filterwarnings("error")
def test_nothing_that_is_measured_is_nan():
    """Without a warning of NumPy's, and without an error of scikit-learn's."""
    known = (FEATURES, LABELS, NONE, NO_LABELS)
    for found in (
        metrics.linear_probe(*known, [3]),
        metrics.nearest_class_mean(*known, [3]),
        metrics.centred_prototypes(*known, [3], shots=1),
        *metrics.few_label_probe(*known, [3], metrics.draw_few(LABELS, 1)),
        *metrics.head_trace(np.ones((3, K)), np.zeros(K), []),
    ):
        assert np.isnan(found)


@pytest.mark.parametrize("mistake", [name for name in CLASSES if name not in ("negative",)])
def test_data_and_pictures_read_classes_alike(mistake):
    split = data.Split(np.zeros((N, 1, 1, 1), np.uint8), LABELS)
    wrong = CLASSES[mistake]([3])
    for read in (
        lambda: data.forget_remain(split, wrong),
        lambda: data.missing(data.Dataset("a", split, split, split, tuple("abcd"), np.zeros(1), np.ones(1)), wrong),
        lambda: choose_samples(LABELS, wrong),
        lambda: arguments.classes(wrong, K),
    ):
        with pytest.raises(ValueError):
            read()
    assert (data.forget_remain(split, 3)[0].labels == 3).all()


def test_masked_data_are_refused():
    images, hidden = np.zeros((N, 1, 1, 1), np.uint8), np.ma.masked_array(LABELS, LABELS == 0)
    for split in (data.Split(images, hidden), data.Split(np.ma.masked_array(images, images == 1), LABELS)):
        with pytest.raises(ValueError, match="must not be a masked array"):
            data.forget_remain(split, [3])
        with pytest.raises(ValueError, match="must not be a masked array"):
            data.Dataset("a", split, split, split, tuple("abcd"), np.zeros(1), np.ones(1))
    with pytest.raises(ValueError, match="must not be a masked array"):
        principal_axes(np.ma.masked_array(FEATURES, FEATURES > 0))
