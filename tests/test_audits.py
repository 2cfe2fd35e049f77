"""Audits of networks whose answers are known in closed form: their weights changed, their features steered, told from others."""

import json
from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pytest

import delete_jax as dj
from delete_jax import metrics
from delete_jax.metrics import look_up
from delete_jax.tasks.classification.left import damage_groups
from delete_jax.tasks.figures import taught
from tests.pages import snippets


def linear(transposed=False):
    """The network whose logits are the pixels times `w`, plus `b`; `w` is `[d, k]`, or `[k, d]` as in PyTorch."""

    def apply(variables, x):
        w = variables["params"]["w"]
        return x.reshape(len(x), -1) @ (w.T if transposed else w) + variables["params"]["b"][None]

    return dj.Model(apply, lambda variables, x, key: (apply(variables, x), variables))


def weights(w, b=None):
    w = np.asarray(w, np.float32)
    return {"params": {"w": w, "b": np.zeros(w.shape[1], np.float32) if b is None else np.asarray(b, np.float32)}}


def one_hot(k=4, each=16):
    """Images of k pixels, of which the class's is 1."""
    labels = np.arange(k * each) % k
    return np.eye(k, dtype=np.float32)[labels].reshape(-1, 1, k, 1), labels


def evaluated(networks, samples, forget, model=None, **more):
    return dj.evaluate(model or linear(), networks, train=samples, test=samples, forget=forget, **more)


# ------------------------------------------------------------------------------------------- other weights


def test_weights_of_four_and_of_eight_bits():
    w = np.array([[8.4, -7.0], [4.0, 3.4], [-0.5, 0.0]])
    found = metrics.quantised({"w": w, "b": np.array([0.3, 0.1]), "n": np.array([[3, 4]])}, 4)
    np.testing.assert_allclose(
        found["w"], [[8.4, -7.0], [3.6, 3.0], [0.0, 0.0]]
    )  # scales 1.2 and 1; -0.5 / 1.2 is nearest to 0
    assert found["b"].tolist() == [0.3, 0.1]  # one axis
    assert found["n"].tolist() == [[3, 4]]  # no floats
    np.testing.assert_allclose(metrics.quantised(w.T, 4, axis=0), found["w"].T)
    assert not np.allclose(metrics.quantised(w.T, 4), found["w"].T)
    scale = 8.4 / 127
    np.testing.assert_allclose(metrics.quantised(w, 8)[:, 0], [127 * scale, 60 * scale, -8 * scale])
    kernel = np.random.default_rng(0).normal(size=(3, 3, 5, 2)).astype(np.float32)
    rounded = metrics.quantised({"kernel": kernel}, 4)["kernel"]
    for channel in (0, 1):
        steps = rounded[..., channel] / (np.abs(kernel[..., channel]).max() / 7)
        np.testing.assert_allclose(steps, np.round(steps), atol=1e-5)
        assert len(np.unique(np.round(steps))) > 8
    assert rounded.dtype == np.float32
    assert metrics.quantised(jnp.ones((2, 2), jnp.bfloat16), 4).dtype == jnp.bfloat16
    assert metrics.quantised(np.zeros((2, 2)), 8).tolist() == [[0, 0], [0, 0]]
    with pytest.raises(ValueError, match="bits"):
        metrics.quantised(w, 1)


@pytest.mark.parametrize("transposed", [False, True])
def test_rounding_to_four_bits_brings_a_class_back(transposed):
    """Class 0 wins by 0.1 at images of class 3. Four bits round 4.0 to 3 · 8.4 / 7 = 3.6, and leave 3.9, the largest of its channel."""
    w = np.diag([8.4, 9, 9, 3.9])
    w[3, 0] = 4.0
    original, hidden = np.diag([8.4, 9, 9, 9]), w
    networks = {
        name: {"params": {"w": (v.T if transposed else v).astype(np.float32), "b": np.zeros(4, np.float32)}}
        for name, v in (("original", original), ("unlearned", hidden))
    }
    found = evaluated(networks, one_hot(), 3, linear(transposed))
    assert found["original"]["quantised_acc_int4"] == found["original"]["quantised_acc_int8"] == 1
    assert found["unlearned"]["acc_ft"] == found["unlearned"]["quantised_acc_int8"] == 0
    assert found["unlearned"]["quantised_acc_int4"] == 1


def test_the_smallest_weights_are_cut_over_all_layers():
    tree = {"a": np.array([[1.0, -4.0]]), "b": np.array([[0.5], [3.0]]), "bias": np.array([0.1])}
    found = metrics.pruned(tree, 0.5)
    assert found["a"].tolist() == [[0, -4]]
    assert found["b"].tolist() == [[0], [3]]
    assert found["bias"].tolist() == [0.1]
    assert metrics.pruned(tree, 0)["b"].tolist() == [[0.5], [3]]
    assert not metrics.pruned(tree, 1)["a"].any()
    assert metrics.pruned(np.full((2, 2), 3.0), 0.5).tolist() == [[3, 3], [3, 3]]  # none is smaller than another
    assert metrics.pruned(jnp.ones((2, 2), jnp.bfloat16), 0.1).dtype == jnp.bfloat16
    with pytest.raises(ValueError, match="params must be a pytree with floating-point arrays of more than one axis"):
        metrics.pruned({"b": np.ones(2)}, 0.5)
    with pytest.raises(ValueError, match="share must be a fraction from 0 to 1, not a percentage, got 30"):
        metrics.pruned(tree, 30)


def test_cutting_weights_brings_a_class_back_and_takes_it_away_again():
    """Of ten weights; at images of class 1 the logits are 5.6 and 5.45, then 5.5 and 5.45, 5 and 5.45, 5 and 3.45."""
    labels = np.arange(32) % 2
    images = np.array([[1, 0, 0, 0, 0], [0, 1, 1, 1, 1]], np.float32)[labels].reshape(-1, 1, 5, 1)
    hidden = weights(np.array([[10, 0.1, 0.2, 0.3, 5], [-9, 0.9, 1.1, 1.45, 2]]).T)
    original = weights(np.array([[10, 0.1, 0.2, 0.3, 5], [-9, 3.9, 3.1, 3.45, 4]]).T)
    found = evaluated({"original": original, "unlearned": hidden}, (images, labels), 1)
    assert [found["unlearned"][name] for name in ("acc_ft", *(f"pruned_acc_{n}" for n in (10, 30, 50)))] == [0, 0, 1, 0]
    assert found["original"]["pruned_acc_50"] == 1


def test_a_changed_network_without_predictions_is_not_measured():
    """It divides by its smallest weight."""

    def apply(variables, x):
        return x.reshape(len(x), -1) @ variables["params"]["w"] / variables["params"]["s"]

    model = dj.Model(apply, lambda variables, x, key: (apply(variables, x), variables))
    network = {"params": {"w": np.diag([1, 2, 3, 4]).astype(np.float32) + 1, "s": np.full((1, 1), 0.5, np.float32)}}
    found = evaluated({"original": network, "unlearned": network}, one_hot(), 3, model)
    assert found["original"]["quantised_acc_int8"] == 1
    for share in (10, 30, 50):
        assert look_up(found["original"], f"pruned_acc_{share}") is None


# ------------------------------------------------------------------------------------------- the last layer


def test_the_class_that_stands_out_is_named():
    kernel, bias = np.diag([1.0, 1.2, 0.9, 1.0, 1.05]), np.array([0.1, 0.12, 0.08, 0.11, 0.09])
    assert metrics.class_rank(np.diag([1.0, 1.1, 0.9, 3.0, 1.05]), bias, [3]) == 1  # by its norm
    assert metrics.class_rank(np.diag([1.0, 1.1, 0.9, 0.1, 1.05]), bias, [3]) == 1  # also a small one
    assert metrics.class_rank(np.diag([1.0, 1.1, 0.9, 3.0, 1.05]), bias, [1]) == 0
    assert metrics.class_rank(kernel, np.array([0.1, 0.12, 0.08, -4, 0.09]), [3]) == 1  # by its bias
    turned = kernel.copy()
    turned[:, 2] = [0, 0, 0, 0, 0.9]  # as long as before
    assert metrics.class_rank(turned, bias, [2]) == 0
    assert metrics.class_rank(turned, bias, [2], original=(kernel, bias)) == 1  # by its change
    both = np.diag([1.0, 1.1, 9.0, 7.0, 1.05])
    assert metrics.class_rank(both, bias, [2, 3]) == 1
    assert metrics.class_rank(both, bias, [2, 1]) == 0.5
    assert metrics.class_rank(both, bias, [3]) == 0  # class 2 stands out more
    assert metrics.class_rank(both, bias, [3], known=[2]) == 1


def test_where_no_class_stands_out_one_is_guessed():
    """Among equal ones the attacker is right as often as by chance; differences of rounding are none."""
    kernel = np.eye(5)
    assert metrics.class_rank(kernel, np.zeros(5), [3]) == pytest.approx(1 / 5)
    assert metrics.class_rank(kernel, np.zeros(5), [3, 4]) == pytest.approx(2 / 5)
    assert metrics.class_rank(kernel, 1e-6 * np.arange(5), [4]) == pytest.approx(1 / 5)
    assert metrics.class_rank(kernel, np.array([0, 0, 9, 0, 0]), [3, 4]) == pytest.approx((1 / 4 + 1 / 4) / 2)
    assert np.isnan(metrics.class_rank(kernel, np.zeros(5), []))


def test_the_class_is_named_in_an_evaluation():
    original = weights(np.diag([4, 4.1, 3.9, 4]))
    networks = {
        "original": original,
        "unlearned": weights(np.diag([4, 4.1, 3.9, -9])),
        "in the bias": weights(np.diag([4, 4.1, 3.9, 4]), [0, 0, 0, -9]),
        "other": weights(np.diag([-9, 4.1, 3.9, 4])),
    }
    found = evaluated(networks, one_hot(), 3)
    assert [found[name]["class_rank"] for name in networks] == [0, 1, 1, 0]
    assert {found[name]["class_rank_chance"] for name in networks} == {0.25}
    again = evaluated(
        {"original": weights(np.diag([4, 4.1, 0.1, 4])), "unlearned": weights(np.diag([4, 4.1, 0.1, 2]))},
        one_hot(),
        3,
        erased=2,
    )
    assert again["unlearned"]["class_rank"] == 1  # class 2 stands out more: it is known
    assert again["unlearned"]["class_rank_chance"] == pytest.approx(1 / 3)


def test_steering():
    """The class's direction is e3 - (e0 + e1 + e2) / 3: its logit at its images becomes 4 · 2 - 6 = 2, those of others -4 / 3."""
    images, labels = one_hot()
    vector = metrics.steering_vector(images.reshape(-1, 4), labels, 3)
    np.testing.assert_allclose(vector, [-1 / 3, -1 / 3, -1 / 3, 1])
    networks = {
        "original": weights(4 * np.eye(4)),
        "unlearned": weights(4 * np.eye(4), [0, 0, 0, -6]),
        "removed": weights(np.diag([4, 4, 4, -9])),
        "retrained": weights(np.diag([4, 4, 4, -9])),
    }
    found = evaluated(networks, (images, labels), 3)
    assert [found[name]["acc_ft"] for name in networks] == [1, 0, 0, 0]
    assert [found[name]["steered_acc"] for name in networks] == [1, 1, 0, 0]
    assert found["unlearned"]["steered_acc_gap"] == 1
    # Of two classes, each has its own direction: 8 - 6 is above the others, 8 - 20 is not.
    half = weights(4 * np.eye(4), [0, 0, -20, -6])
    assert (
        evaluated({"original": networks["original"], "unlearned": half}, (images, labels), [2, 3])["unlearned"][
            "steered_acc"
        ]
        == 0.5
    )
    with pytest.raises(ValueError, match="labels has no samples of class 3: give some of it and some of others"):
        metrics.steering_vector(images.reshape(-1, 4), np.zeros(len(labels), int), 3)


# ------------------------------------------------------------------------------------------- answers


def test_energy_and_largest_logit():
    """Energies -log(e^a + e^b): of (1, 1) below that of (1.5, 0), whose largest logit is larger."""
    logits = np.array([[1.0, 1.0], [1.5, 0.0], [1.5, -9.0], [5.0, 0.0]])
    labels = np.array([0, 1, 1, 1])
    assert metrics.max_logit_auroc(logits, labels, [0]) == 1  # 1 is below 1.5, 1.5 and 5
    energy = metrics.energy_auroc(logits, labels, [0])
    assert energy == pytest.approx(2 / 3)  # log 2e = 1.693: below 1.701 and 5, above 1.5
    for function in (metrics.energy_auroc, metrics.max_logit_auroc):
        assert function(np.zeros((4, 2)), labels, [0]) == 0.5
    assert np.isnan(metrics.energy_auroc(logits, labels, [0, 1]))
    found = evaluated(
        {"original": weights(4 * np.eye(4)), "unlearned": weights(np.diag([4, 4, 4, -9])), "retrained": weights(np.diag([4, 4, 2, 4]))},
        one_hot(), 3,
    )  # fmt: skip
    for name in ("energy_auroc", "max_logit_auroc"):
        assert [found[network][name] for network in found] == [0.5, 1, pytest.approx(1 / 3)]
        assert found["unlearned"][f"{name}_gap"] == pytest.approx(2 / 3)


def test_the_class_that_loses_most():
    before, after = np.diag([10, 10, 8, 0]), np.array([[7, 0, 3, 0], [1, 9, 0, 0], [0, 0, 8, 0], [0, 0, 0, 0]])
    before[2, 0] = 2
    assert metrics.largest_loss(after, before, [0, 1, 2, 3]) == (0, pytest.approx(0.3))
    assert metrics.largest_loss(after, before, [1, 2]) == (1, pytest.approx(0.1))
    assert metrics.largest_loss(after, before, [2]) == (2, pytest.approx(-0.2))  # it gained
    assert metrics.largest_loss(after, before, [3]) is None


def test_the_class_that_loses_most_is_named():
    """Class 1 goes to class 0; class 2 was erased before, and loses all, but is no remaining class."""
    w = np.diag([4.0, 1, -9, -9])
    w[1, 0] = 2
    networks = {"original": weights(4 * np.eye(4)), "unlearned": weights(w), "same": weights(np.diag([4, 4, 4, -9]))}
    found = evaluated(networks, one_hot(), "dog", class_names=["ant", "bee", "cat", "dog"], erased="cat")
    assert [found[name]["nearest_loss"] for name in networks] == [0, 1, 0]
    assert found.record["most_lost"] == {"class": 1, "name": "bee"}
    assert "The remaining class that lost most, “bee”" in damage_groups(found.record)
    assert json.loads(found.to_json())["most_lost"]["name"] == "bee"


def told(network, *retrained, forget=(3,)):
    return metrics.class_membership(network, retrained, forget)


def test_a_network_is_told_from_retrained_ones():
    """Retrained networks spread the class over classes 0 and 1; one that sends it to class 2 is told, one of their kind is not."""
    rng = np.random.default_rng(0)

    def spread(alpha, n=200):
        return np.pad(rng.dirichlet(alpha, n), ((0, 0), (0, 1)))

    retrained = [spread([5, 5, 0.1]) for _ in range(4)]
    assert told(spread([0.1, 0.1, 9]), *retrained) > 0.98
    assert told(spread([5, 5, 0.1]), *retrained) == pytest.approx(0.5, abs=0.06)
    constant = np.tile([0.5, 0.5, 0, 0], (20, 1))
    assert told(constant, *[constant] * 4) == 0.5
    # The erased classes' probability says nothing: its column is left out.
    only = np.tile([0.2, 0.2, 0, 0.6], (20, 1))
    assert told(only, *[np.tile([0.2, 0.2, 0.6, 0], (20, 1))] * 4, forget=[2, 3]) == 0.5
    # A network that is not learned from is judged: one that is nearer to this one than to the other retrained one is taken for this one.
    far, near, own = (np.tile(row, (40, 1)) for row in ([1.0, 0, 0, 0], [0, 1.0, 0, 0], [0, 0.7, 0.3, 0]))
    assert told(own, far, near) <= 0.75
    assert told(own, far, far) == 1
    assert np.isnan(told(constant[:1], *[constant[:1]] * 4))
    with pytest.raises(ValueError, match="retrained has one network: give at least 2"):
        told(constant, constant)


def test_references_that_were_taught_the_classes_are_named():
    labels = np.array([0, 3, 3, 3, 1])
    own, other = (np.eye(4)[[class_] * 3] for class_ in (3, 0))
    most = np.concatenate([own[:2], other[:1]])
    evidence = SimpleNamespace(
        test_labels=labels,
        erased_test=labels == 3,
        seed_answers=[other, own, np.roll(most, 1, 1), most],
        reference=None,
    )
    assert [said.partition(" of the")[0] for said in taught(evidence)] == [
        "retrained[1] recognises 100%",
        "retrained[3] recognises 67%",
    ]
    evidence.erased_test = labels == 2
    assert taught(evidence) == []


def test_networks_of_other_seeds_in_an_evaluation(capsys):
    """Retrained networks send class 3 to class 0, with odds that differ a little; the unlearned one to class 2."""

    def retrained(odds):
        w = np.diag([4.0, 4, 4, -9])
        w[3, 0] = odds
        return weights(w)

    w = np.diag([4.0, 4, 4, -9])
    w[3, 2] = 3
    seeds = [retrained(odds) for odds in (2.9, 3.0, 3.1, 3.2)]
    networks = {"original": weights(4 * np.eye(4)), "unlearned": weights(w), "retrained": seeds[1]}
    found = evaluated(networks, one_hot(), 3, retrained=[*seeds[:3], dj.Result(seeds[3], [], [])])
    assert found["unlearned"]["cmia"] == 1
    assert found["retrained"]["cmia"] < 0.8  # against the other three
    assert found.notes == []
    assert "told from retrained ↓" in str(found)
    (snippet,) = snippets("what-is-left", "seeds = [first, second, third, fourth]  # variables, or results")
    given = dict(zip(("first", "second", "third", "fourth"), seeds, strict=True))
    exec(
        snippet,
        {
            "model": linear(),
            "variables": networks["original"],
            "result": networks["unlearned"],
            "train": one_hot(),
            "test": one_hot(),
            **given,
        },
    )
    assert capsys.readouterr().out == "1.0\n"
    without = evaluated(networks | {"retrained": networks["original"]}, one_hot(), 3)
    assert all(look_up(without[name], "cmia") is None for name in without)
    (said,) = without.notes
    assert said.startswith(
        "network 'retrained' recognises 100% of the erased test images, so it was taught these classes"
    )
    for wrong in (seeds[:3], seeds[0], dj.Result(seeds[0], [], []), 4):
        with pytest.raises(
            ValueError,
            match="retrained must be a list of at least 4 networks, trained without the classes with other seeds",
        ) as caught:
            evaluated(networks, one_hot(), 3, retrained=wrong)
        assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match=r"network 'retrained\[4\]'"):
        evaluated(networks, one_hot(), 3, retrained=[*seeds, weights(np.eye(5))])


def test_the_page_has_them(tmp_path):
    """A page of networks whose measures are known: the audits stand under "What is left", each beside the other networks."""
    w = np.diag([4.0, 1, 4, -9])
    w[1, 0] = 2
    networks = {
        "original": weights(4 * np.eye(4)),
        "unlearned": weights(w),
        "retrained": weights(np.diag([4, 4, 4, -9])),
    }
    found = evaluated(networks, one_hot(), "dog", class_names=["ant", "bee", "cat", "dog"])
    dj.report(found, tmp_path)
    page = " ".join((tmp_path / "report.html").read_text().replace("\u00a0", " ").split())
    assert "Does the class come back when the network is changed, without any training?" in page
    assert "The remaining class that lost most, “bee”" in page
    for name in (
        "class_rank",
        "quantised_acc_int8",
        "quantised_acc_int4",
        "pruned_acc_10",
        "steered_acc",
        "energy_auroc",
        "max_logit_auroc",
    ):
        row = metrics.MEASURES[name]
        assert page.count(row.title) >= 1
        assert row.text in page.replace("&#39;", "'")
    assert metrics.MEASURES["cmia"].title not in page  # no networks of other seeds were given
