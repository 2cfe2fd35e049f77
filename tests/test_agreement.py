"""Measures against the same by scikit-learn and SciPy, on random samples; and the page that lists what is compared with what."""

import ast
import functools
import inspect
import pathlib
import re

import jax
import jax.numpy as jnp
import numpy as np
import scipy.spatial.distance
import scipy.special
import scipy.stats
import sklearn.decomposition
import sklearn.linear_model
import sklearn.metrics
import sklearn.neighbors
from sklearn.metrics.pairwise import cosine_similarity

from delete_jax import losses, metrics
from delete_jax.methods import METHODS, finish
from delete_jax.metrics.principal import principal_axes

ROOT = pathlib.Path(__file__).parent.parent
PAGE = ROOT / "docs" / "reference" / "agreement.md"
K, ERASED = 5, [1, 3]
close = functools.partial(np.testing.assert_allclose, rtol=1e-12)


def samples(n=200, seed=0):
    """Logits, labels of all classes, and features that know something of them."""
    rng = np.random.default_rng(seed)
    labels = np.concatenate([np.arange(K), rng.integers(0, K, n - K)])
    return rng.normal(size=(n, K)) + np.eye(K)[labels], labels, rng.normal(size=(n, 7)) + 2 * np.eye(K, 7)[labels] + 1


LOGITS, LABELS, FEATURES = samples()
TEST_LOGITS, TEST_LABELS, TEST_FEATURES = samples(150, 1)
P, Q = (scipy.special.softmax(logits[:150], -1) for logits in (LOGITS, TEST_LOGITS))
IS_ERASED = np.isin(TEST_LABELS, ERASED)
KEPT = [0, 2, 4]


def test_accuracies():
    answers = LOGITS.argmax(-1)
    confusion = metrics.confusion_matrix(LABELS, answers, K)
    np.testing.assert_array_equal(confusion, sklearn.metrics.confusion_matrix(LABELS, answers))
    close(metrics.per_class(confusion), sklearn.metrics.recall_score(LABELS, answers, average=None))
    some = np.isin(LABELS, ERASED)
    right = sklearn.metrics.accuracy_score(LABELS[some], answers[some])
    close(metrics.accuracy(confusion, ERASED), right)
    found = metrics.forget_remain_accuracy(answers, LABELS, ERASED)
    close([found["acc_f"], found["acc_r"]], [right, sklearn.metrics.accuracy_score(LABELS[~some], answers[~some])])
    close(metrics.absorbed_by(confusion, ERASED), np.bincount(answers[some], minlength=K) / some.sum())
    overlaps = sklearn.metrics.jaccard_score(LABELS, answers, average=None)
    close(metrics.iou(confusion), overlaps)
    close(metrics.mean_iou(confusion, ERASED), overlaps[ERASED].mean())


def test_harmonic_means():
    close(metrics.hmean_residual(acc_rt=0.8, acc_ft=0.3), scipy.stats.hmean([0.8, 0.7]))
    close(metrics.hmean_drop(acc_rt=0.8, acc_ft=0.3, original_acc_ft=0.9), scipy.stats.hmean([0.8, 0.6]))


def test_distances():
    pairs = [*zip(P, Q, strict=True)]
    close(metrics.total_variation(P, Q), np.mean([scipy.spatial.distance.cityblock(*pair) / 2 for pair in pairs]))
    squares = np.square([scipy.spatial.distance.jensenshannon(*pair) for pair in pairs])
    close(metrics.jensen_shannon(P, Q), squares.mean())
    close(metrics.agreement(P, Q), sklearn.metrics.accuracy_score(P.argmax(-1), Q.argmax(-1)))
    by_class = metrics.agreement_by_class(TEST_LABELS, P.argmax(-1), Q.argmax(-1), K)
    close(by_class, [np.mean((P.argmax(-1) == Q.argmax(-1))[c == TEST_LABELS]) for c in range(K)])
    masked = scipy.special.softmax(np.where(np.isin(np.arange(K), ERASED), -np.inf, LOGITS[:150]), -1)
    expected = np.mean([scipy.spatial.distance.cityblock(*pair) / 2 for pair in zip(masked, Q, strict=True)])
    close(metrics.over_unlearning(LOGITS[:150], TEST_LOGITS, ERASED), expected)


def mann_whitney(scores):
    """The share of pairs of an erased and another sample in which the erased one has the higher score."""
    found = scipy.stats.mannwhitneyu(scores[IS_ERASED], scores[~IS_ERASED]).statistic
    return found / (IS_ERASED.sum() * (~IS_ERASED).sum())


def test_areas_under_curves():
    """scikit-learn's are used; SciPy's rank test counts the same pairs."""
    close(metrics.residual_auc(Q, TEST_LABELS, ERASED), mann_whitney(Q[:, ERASED].sum(-1)))
    energy = -scipy.special.logsumexp(TEST_LOGITS, axis=-1)
    close(metrics.energy_auroc(TEST_LOGITS, TEST_LABELS, ERASED), mann_whitney(energy))
    close(metrics.max_logit_auroc(TEST_LOGITS, TEST_LABELS, ERASED), mann_whitney(-TEST_LOGITS.max(-1)))


def test_entropies_and_confidences():
    close(metrics.entropy(P), scipy.stats.entropy(P, axis=-1))
    true = Q[np.arange(150), TEST_LABELS]
    close(metrics.logit_confidence(TEST_LOGITS, TEST_LABELS), scipy.special.logit(true), rtol=1e-9)


def test_nearest_means():
    """By distance, by cosine, and as the features' centroids."""
    nearest = sklearn.neighbors.NearestCentroid().fit(FEATURES, LABELS).predict(TEST_FEATURES)
    expected = np.mean(nearest[IS_ERASED] == TEST_LABELS[IS_ERASED])
    close(metrics.nearest_class_mean(FEATURES, LABELS, TEST_FEATURES, TEST_LABELS, ERASED), expected)
    centre = FEATURES[~np.isin(LABELS, ERASED)].mean(0)
    means = np.stack([FEATURES[c == LABELS].mean(0) - centre for c in range(K)])
    answers = cosine_similarity(TEST_FEATURES - centre, means).argmax(-1)
    expected = np.mean(answers[IS_ERASED] == TEST_LABELS[IS_ERASED])
    close(metrics.centred_prototypes(FEATURES, LABELS, TEST_FEATURES, TEST_LABELS, ERASED, shots=None), expected)
    own, others = (sklearn.neighbors.NearestCentroid().fit(FEATURES, LABELS == 1).centroids_[i] for i in (1, 0))
    close(metrics.steering_vector(FEATURES, LABELS, 1), own - others)


def test_probes():
    """scikit-learn's, put together by hand; the probe with all labels is the one with every sample in its draw."""
    mean, deviation = FEATURES.mean(0), FEATURES.std(0)
    attack = sklearn.linear_model.LogisticRegression(C=1.0, max_iter=5000).fit((FEATURES - mean) / deviation, LABELS)
    right = attack.predict((TEST_FEATURES - mean) / deviation) == TEST_LABELS
    given = (FEATURES, LABELS, TEST_FEATURES, TEST_LABELS)
    close(metrics.linear_probe(*given, ERASED), right[IS_ERASED].mean())
    few = metrics.few_label_probe(*given, ERASED, metrics.draw_few(LABELS, None))
    close(few, [right[IS_ERASED].mean(), right[~IS_ERASED].mean()])


def test_principal_components():
    fitted = sklearn.decomposition.PCA(2).fit(FEATURES)
    found = principal_axes(FEATURES)
    close(np.abs(found.project(TEST_FEATURES)), np.abs(fitted.transform(TEST_FEATURES)), rtol=1e-9)


def test_pairs_and_ranks_of_faces():
    scores = metrics.pair_scores(FEATURES[:40], LABELS[:40])
    first, second = np.triu_indices(40, 1)
    cosines, same = cosine_similarity(FEATURES[:40])[first, second], LABELS[first] == LABELS[second]
    close(np.sort(scores.genuine), np.sort(cosines[same]))
    close(np.sort(scores.impostor), np.sort(cosines[~same]))
    two = sklearn.neighbors.NearestNeighbors(n_neighbors=2, metric="cosine").fit(FEATURES)
    nearest = two.kneighbors(FEATURES, return_distance=False)[:, 1]
    close(metrics.rank_one(FEATURES, LABELS), np.mean(LABELS[nearest] == LABELS))


def test_what_stands_out_in_a_layer():
    rng = np.random.default_rng(2)
    kernel, bias = rng.normal(size=(7, K)), rng.normal(size=K)
    norms = np.linalg.norm(kernel, axis=0)
    scores = np.max([np.abs(x - np.median(x)) / scipy.stats.median_abs_deviation(x) for x in (norms, bias)], 0)
    named = np.argsort(scores)[-2:]
    close(metrics.class_rank(kernel, bias, ERASED), np.isin(ERASED, named).mean())
    ranks = [(scipy.stats.rankdata(x)[ERASED].mean() - 1) / (K - 1) for x in (norms, bias)]
    close(metrics.head_trace(kernel, bias, ERASED), ranks)


def test_divergences_and_masked_predictions(x64):
    """DELETE's target and divergence, its parts, and cross entropy."""
    erase = np.isin(np.arange(K), ERASED)
    target = np.asarray(losses.masked_log_softmax(jnp.asarray(LOGITS), jnp.asarray(erase)[None]))
    close(target[:, KEPT], scipy.special.log_softmax(LOGITS[:, KEPT], -1))
    assert np.isneginf(target[:, ERASED]).all()
    found = losses.kl_divergence(jnp.log(P), jnp.log(Q))
    close(found, scipy.special.rel_entr(P, Q).sum(-1), rtol=1e-9)
    parts = losses.decompose(jnp.log(P), jnp.log(Q), jnp.asarray(erase)[None])
    pair = [np.stack([p[:, ERASED].sum(-1), p[:, KEPT].sum(-1)], -1) for p in (P, Q)]
    close(parts.forgetting, scipy.special.rel_entr(*pair).sum(-1), rtol=1e-8)
    for part, classes, share in ((parts.within, ERASED, pair[0][:, 0]), (parts.retention, KEPT, pair[0][:, 1])):
        inside = [p[:, classes] / p[:, classes].sum(-1, keepdims=True) for p in (P, Q)]
        close(part, share * scipy.special.rel_entr(*inside).sum(-1), rtol=1e-8)
    one_hot = losses.one_hot_log(jnp.asarray(TEST_LABELS), K, jnp.float64)
    mean = jnp.mean(losses.kl_divergence(one_hot, jax.nn.log_softmax(jnp.asarray(TEST_LOGITS))))
    close(mean, sklearn.metrics.log_loss(TEST_LABELS, Q))


# ------------------------------------------------------------------------------------------------------------- the page

NO_OTHER = {
    "absorbed_by", "aus", "draw_few", "equal_error_rate", "largest_loss", "look_up", "measure", "nearest_class", "predicted_fraction",
    "prototype_attack", "relearn_steps", "show", "steered_accuracy", "true_acceptance", "with_gaps", "without_rows",
    "class_membership",
}  # fmt: skip
"""Functions of `metrics` with known answers in their own tests, of which no other library has the like."""


def listed() -> list[tuple[set[str], str, str, str]]:
    """The rows of the page: names, the largest difference, the test's file and its name."""
    rows = re.findall(r"^\| (.*) \| .* \| (.*) \| `(tests/\w+\.py)::(\w+)` \|$", PAGE.read_text(), re.MULTILINE)
    return [(set(re.findall(r"`([\w.]+)`", names)), difference, file, test) for names, difference, file, test in rows]


@functools.cache
def functions_of(file: str) -> dict[str, str]:
    """The functions of a file of tests, with their code."""
    source = (ROOT / file).read_text()
    lines = source.splitlines()
    found = [node for node in ast.parse(source).body if isinstance(node, ast.FunctionDef)]
    return {node.name: "\n".join(lines[node.lineno - 1 : node.end_lineno]) for node in found}


def test_the_tests_that_the_page_names():
    """Each is there, and says the difference that the page says."""
    rows = listed()
    assert len(rows) == PAGE.read_text().count("`tests/") > 25
    for names, difference, file, test in rows:
        assert names, test
        code = functions_of(file).get(test)
        assert code is not None, f"{file}::{test}"
        as_here = {"0": "assert_array_equal", "1e-12": "close("}.get(difference, difference)  # `close` says 1e-12
        assert difference in code or as_here in code, f"{file}::{test} says nothing of {difference}"


def test_the_page_has_everything_in_closed_form():
    """Every method that is computed at once, and every function of `metrics` but those that nobody else has."""
    names = set().union(*(row[0] for row in listed()))
    at_once = {name for name, make in METHODS.items() if make().edit is not None} | {finish.__name__}
    assert at_once <= names, at_once - names
    functions = {name for name in metrics.__all__ if inspect.isfunction(getattr(metrics, name))}
    assert functions - NO_OTHER <= names, functions - NO_OTHER - names
    assert not NO_OTHER & names
