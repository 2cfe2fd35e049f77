"""Less memory for the same step: batches in parts, activations computed again, large answers of the teacher not kept."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

import delete_jax as dj
from delete_jax import editing, loop, memory, models, parallel, preparing
from delete_jax.columns import arrays
from delete_jax.config import Config
from delete_jax.data import augmentation, normalize
from delete_jax.job import checked_job
from delete_jax.loop import one
from delete_jax.memory import array_bytes, peak_bytes, program_bytes
from delete_jax.methods import COUNTERPARTS, MAPS, METHODS
from delete_jax.network_check import as_is
from delete_jax.options import Options
from delete_jax.run.folder import Folder
from delete_jax.step import init_state, make_part_steps, make_train_step, sgd
from delete_jax.streams import split_streams
from tests import tiny

TRAINED = [
    name
    for name, make in METHODS.items()
    if make().edit is None and not {MAPS, COUNTERPARTS} & {*make().needs} and not make().starts_over
]
SETTINGS = {"forget": [1], "epochs": 2, "lr": 0.05, "batch_size": 16, "batch_norm": "frozen"}


def difference(found, expected) -> float:
    """The largest, in units of the largest number of a leaf."""
    pairs = zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True)
    return max(float(jnp.abs(a - b).max() / (jnp.abs(b).max() + 1e-6)) for a, b in pairs)


OFTEN = ("delete", "anchored", "random_label", "salun", "scrub")  # the others among the slow tests


@pytest.mark.parametrize("name", [pytest.param(n, marks=() if n in OFTEN else pytest.mark.slow) for n in TRAINED])
def test_parts_make_the_same_step(name):
    model, variables = tiny.network()
    images, labels = tiny.samples(96)
    settings = {**SETTINGS, "method": name, "parallel": "jit", "lr": 1e-3}
    whole = dj.unlearn(model, variables, images, labels, **settings)
    parts = dj.unlearn(model, variables, images, labels, micro_batch=4, **settings)
    assert difference(parts.variables, whole.variables) < 1e-5
    assert len(parts.history) == len(whole.history)
    for found, expected in zip(parts.history, whole.history, strict=True):
        assert found.keys() == expected.keys()
        np.testing.assert_allclose(list(found.values()), list(expected.values()), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    "mode",
    [
        pytest.param("jit", marks=pytest.mark.slow),
        pytest.param("pmap", marks=[pytest.mark.pmap, pytest.mark.slow]),
        "sharding",
    ],
)
@pytest.mark.usefixtures("full_precision")
def test_parts_on_one_device_and_on_eight(mode):
    """Uneven weights and augmentation: each part counts by its weight, each image moves as in the whole batch."""
    model, variables = tiny.network()
    images, labels = tiny.samples(192)
    images = np.clip(images * 64 + 64, 0, 255).astype(np.uint8)
    streams = split_streams(images, labels, [1], tiny.NUM_CLASSES, ["forget"])
    streams["forget"]["weight"] = np.linspace(0, 3, len(streams["forget"]["label"])).astype(np.float32) ** 2
    preprocess, augment = normalize([0.5], [0.25]), augmentation(("flip", "crop"), padding=1)

    def trained(mode, num_parts):
        options = Options(
            lr=0.05, seed=3, epochs=1, batch_size=16, micro_batch=16 // num_parts, batch_norm="frozen",
            preprocess=preprocess, augment=augment, parallel=mode,
        )  # fmt: skip
        return one(checked_job(model, variables, streams, tiny.NUM_CLASSES, (1,), dj.methods.anchored(), options))

    whole, parts = trained("jit", 1), trained(mode, 2)
    assert len(parts.history) == 3
    assert difference(jax.device_get(parts.variables), jax.device_get(whole.variables)) < 1e-5


def test_parts_in_train_mode_have_statistics_of_their_own():
    """Two parts of equal samples: the running averages move twice, each time as far as they would with the whole batch."""
    model, variables = tiny.network()
    images, labels = np.repeat(tiny.samples(4)[0], 4, axis=0), np.repeat(np.arange(4), 4)
    settings = {**SETTINGS, "batch_norm": "train", "epochs": 1, "batch_size": 4, "parallel": "jit", "lr": 1e-9}

    def mean(**more):
        found = dj.unlearn(model, variables, images, labels, **settings, **more, method="delete").variables
        return np.asarray(found["batch_stats"]["BatchNorm_0"]["mean"])

    before = np.asarray(variables["batch_stats"]["BatchNorm_0"]["mean"])
    once, twice = mean() - before, mean(micro_batch=2) - before
    np.testing.assert_allclose(twice, (1 + 0.9) * once, rtol=1e-4)


def test_a_part_needs_less_memory():
    """What the compiled program sets aside beside its arguments and its result."""
    module = models.create("resnet_small", 10)
    model, variables = models.from_linen(module), models.init(module, (32, 32, 3), 0)
    images = np.zeros((64, 32, 32, 3), np.float32)
    streams = arrays(split_streams(images, np.zeros(64, int), [0], 10, ["forget"]))
    method, tx = dj.methods.delete(), sgd()
    state, key = init_state(variables, tx), jax.random.key(0)
    settings = {"preprocess": as_is, "batch_norm": "frozen"}

    def needed(function, *arguments):
        return jax.jit(function).lower(*arguments).compile().memory_analysis().temp_size_in_bytes

    frozen = {"original": variables}
    whole = needed(make_train_step(model, method, tx, **settings), state, frozen, streams, 0.1, key)
    steps = make_part_steps(model, method, tx, 8, **settings)
    begun = jax.eval_shape(steps.begin, state, frozen, streams, key, {})
    part = needed(steps.add, begun[2], np.uint32(0), state, frozen, begun[0], begun[1], key, {})
    assert part < whole / 4


@pytest.mark.parametrize(
    ("micro_batch", "words"),
    [
        (3, "micro_batch 3 does not fit into a batch of 16 on 1 device"),
        (32, "use one of 1, 2, 4, 8, 16"),
        (0, "micro_batch must be at least 1, got 0"),
        (True, "micro_batch must be an integer, got True"),
    ],
)
def test_wrong_parts(micro_batch, words):
    model, variables = tiny.network()
    with pytest.raises(ValueError, match=words):
        dj.unlearn(model, variables, *tiny.samples(64), micro_batch=micro_batch, parallel="jit", **SETTINGS)


@pytest.mark.devices(8)
@pytest.mark.pmap
def test_parts_must_be_split_over_the_devices():
    model, variables = tiny.network()
    with pytest.raises(ValueError, match=r"on 8 device.*use one of 8, 16"):
        dj.unlearn(model, variables, *tiny.samples(64), micro_batch=4, parallel="pmap", **SETTINGS)


REMAT = ["resnet18", "resnet50_imagenet", "vit_s4", "swin_t", "deeplab_resnet50"]


@pytest.mark.slow
@pytest.mark.parametrize("name", REMAT)
def test_activations_that_are_computed_again(name):
    """Traced only: the same variables, and less than half of what the backward pass keeps."""
    size = 64 if name == "swin_t" else 32

    def traced(remat):
        module = models.create(name, 10, remat=remat)
        x = jax.ShapeDtypeStruct((8, size, size, 3), jnp.float32)
        key = jax.random.key(0)
        variables = jax.eval_shape(lambda key, x: module.init(key, x, train=False), key, x)

        def kept(variables, x):
            def loss(params):
                given = {**variables, "params": params}
                rngs = {"dropout": key}
                return module.apply(given, x, train=True, mutable=["batch_stats"], rngs=rngs)[0].sum()

            return jax.vjp(loss, variables["params"])[1]

        return variables, sum(leaf.size for leaf in jax.tree.leaves(jax.eval_shape(kept, variables, x)))

    variables, kept = traced(remat=False)
    again, less = traced(remat=True)
    assert jax.tree.map(lambda leaf: leaf.shape, again) == jax.tree.map(lambda leaf: leaf.shape, variables)
    parameters = sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))
    assert less - parameters < (kept - parameters) / 2


@pytest.mark.slow
def test_the_same_network_computed_again():
    images, labels = tiny.samples(64, size=8)
    images = np.repeat(images, 3, axis=-1)
    outcomes = []
    for remat in (False, True):
        module = models.create("resnet_tiny", 4, remat=remat)
        variables = models.init(module, images.shape[1:], 0)
        settings = SETTINGS | {"batch_norm": "train", "parallel": "jit"}
        outcomes.append(
            dj.unlearn(models.from_linen(module), variables, images, labels, **settings, method="delete").variables
        )
    assert difference(*outcomes) < 1e-5


def test_a_network_without_remat():
    with pytest.raises(ValueError, match=r"all_cnn has none: resnet_tiny, .*vit_s16.*deeplab"):
        models.create("all_cnn", 10, remat=True)


@pytest.mark.parametrize("name", ["delete", "anchored", "bad_teacher"])
def test_large_answers_are_computed_in_the_step(name, monkeypatch):
    model, variables = tiny.network(tiny.Segmenter())
    images, labels = tiny.samples(32)
    maps = np.broadcast_to(labels[:, None, None], (32, 6, 6))
    kept = dj.unlearn(model, variables, images, maps, method=name, **SETTINGS)
    monkeypatch.setattr(preparing, "MOST_ANSWER_BYTES", 8 * 6 * 6 * 4 * 4 - 1)
    seen = []
    spied = preparing.make_predictor
    monkeypatch.setattr(preparing, "make_predictor", lambda *given: seen.append(given) or spied(*given))
    found = dj.unlearn(model, variables, images, maps, method=name, **SETTINGS)
    assert difference(found.variables, kept.variables) < 1e-5


def test_the_peak_is_known(tmp_path):
    before = peak_bytes()
    model, variables = tiny.network()
    store = dj.Checkpoints(tmp_path / "states")
    found = dj.unlearn(model, variables, *tiny.samples(64), store=store, **SETTINGS, method="delete")
    assert 50e6 < before <= found.peak_bytes <= peak_bytes()
    again = dj.unlearn(model, variables, *tiny.samples(64), store=store, **SETTINGS, method="delete")
    assert again.peak_bytes == found.peak_bytes
    assert dj.unlearn(model, variables, *tiny.samples(64), method="pour", **SETTINGS).peak_bytes >= before


@pytest.mark.usefixtures("full_precision")
def test_bytes_of_a_program():
    """A donated argument counts once, what is computed in between counts too, also where the program comes from the cache."""
    x = jnp.zeros((32, 32), jnp.float32)

    def needed(function, **how):
        return program_bytes(jax.jit(function, **how).lower(x).compile()) / x.nbytes

    for _ in range(2):
        assert needed(lambda x: 2 * x) == 2
        assert needed(lambda x: 2 * x, donate_argnums=0) == 1
        assert needed(lambda x: x @ x @ x) == 3
        jax.clear_caches()


def test_bytes_where_the_backend_does_not_say():
    class Program:
        def memory_analysis(self):
            raise jax.errors.JaxRuntimeError("FAILED_PRECONDITION: no buffer assignment")

    assert program_bytes(Program()) is None
    Program.memory_analysis = lambda self: None
    assert program_bytes(Program()) is None


@pytest.mark.devices(2)
def test_bytes_on_the_fullest_device():
    on = jax.devices()
    first, *others = (jax.device_put(np.zeros(100, np.int8), device) for device in (on[0], on[1], on[1]))
    split = jax.device_put(np.zeros(2 * len(on), np.int8), NamedSharding(Mesh(np.array(on), "x"), P("x")))
    assert array_bytes({"a": [first, first, first], "b": others, "c": split, "host": np.zeros(1000)}) == 2 * 100 + 2


def test_an_allocator_that_does_not_count(monkeypatch):
    """What is free on the host says nothing of a GPU."""

    class Device:
        memory_stats = staticmethod(lambda: None)

    monkeypatch.setattr(memory, "own_devices", lambda: [Device])
    monkeypatch.setattr(memory, "devices_have_memory", lambda: True)
    assert memory.free_bytes() is None


@pytest.fixture
def as_on_a_gpu(monkeypatch):
    """Whose allocator remembers that 0.6 GB were in use while XLA tried kernels."""
    for module in (loop, editing):
        monkeypatch.setattr(module, "devices_have_memory", lambda: True)
        monkeypatch.setattr(module, "peak_bytes", lambda: 600_000_000)


def test_a_training_has_one_peak(as_on_a_gpu, tmp_path):
    """In a process that has just compiled it, in one that finds it compiled, and in one that goes on with it."""
    store = dj.Checkpoints(tmp_path / "half")

    def peak(**changed):
        return dj.unlearn(
            *tiny.network(), *tiny.samples(64), **{"method": "delete"} | SETTINGS | {"parallel": "jit"} | changed
        ).peak_bytes

    first = peak()
    parallel._trainer.cache_clear()
    jax.clear_caches()
    assert peak() == first
    large = dj.unlearn(
        *tiny.network(), *tiny.samples(640), **SETTINGS | {"parallel": "jit"}, method="delete"
    ).peak_bytes
    assert peak() == first < large
    one_epoch = peak(epochs=1, store=store)
    assert one_epoch == peak(store=store) == peak(store=store) == first
    assert peak(micro_batch=4) < first


@pytest.mark.parametrize("options", [{}, {"micro_batch": 8}, {"resident": 0}], ids=str)
@pytest.mark.parametrize("mode", ["jit", "sharding", pytest.param("pmap", marks=pytest.mark.pmap)])
def test_the_program_is_not_compiled_for_its_memory(mode, options, as_on_a_gpu, monkeypatch, compiled):
    def watched(*how):
        trainer = make(*how)

        def needs(*given, **more):
            before = len(compiled)
            found = trainer.needs(*given, **more)
            counted.append((found, compiled[before:]))
            return found

        return trainer._replace(needs=needs)

    make, counted = loop.make_trainer, []
    parallel._trainer.cache_clear()
    monkeypatch.setattr(loop, "make_trainer", watched)
    found = dj.unlearn(
        *tiny.network(), *tiny.samples(64), **{"method": "delete"} | SETTINGS | {"parallel": mode} | options
    )
    assert compiled, "the step was"
    assert counted == [(found.peak_bytes, [])]


def test_samples_count_where_they_lie(as_on_a_gpu):
    """Twice the samples take their own bytes more, and none where they stay on the host; there, two more batches wait."""
    model, variables = tiny.network()

    def peak(n, **changed):
        return dj.unlearn(
            model, variables, *tiny.samples(n), **{"method": "delete"} | SETTINGS | {"parallel": "jit"} | changed
        ).peak_bytes

    sample = 6 * 6 * 4 + 4 + 4 + 4 * tiny.NUM_CLASSES  # image, class, weight, the original's answer
    assert peak(256) - peak(128) == 32 * sample
    on_host = peak(128, resident=0)
    in_batch = sample + tiny.NUM_CLASSES  # with its mask
    assert on_host - peak(128) == 2 * 16 * in_batch - 32 * 6 * 6 * 4


def test_a_peak_is_of_the_whole_training_or_unknown(as_on_a_gpu, monkeypatch, tmp_path):
    """Not of the epochs of one process alone."""
    given = (*tiny.network(), *tiny.samples(64))
    saved: list = []

    class Kept:
        def restore(self):
            return saved[-1] if saved else None

        def save(self, epoch, tree, meta):
            saved.append((tree, {name: value for name, value in meta.items() if name != "peak_bytes"}))

    dj.unlearn(*given, store=Kept(), **SETTINGS | {"epochs": 1}, method="delete")
    assert dj.unlearn(*given, store=Kept(), **SETTINGS, method="delete").peak_bytes is None
    assert dj.unlearn(*given, method="pour", **SETTINGS).peak_bytes is None
    monkeypatch.setattr(parallel, "program_bytes", lambda program: None)
    parallel._trainer.cache_clear()
    assert dj.unlearn(*given, **SETTINGS, method="delete").peak_bytes is None
    parallel._trainer.cache_clear()


def test_a_folder_of_a_version_without_these_settings(tmp_path):
    """What it does not name is what it was: the default."""
    folder, config = Folder(tmp_path, None), Config()
    with folder.claimed(config):
        pass
    path = tmp_path / "config.json"
    earlier = json.loads(path.read_text())
    for part, name in (
        ("model", "remat"),
        ("model", "input_size"),
        ("unlearn", "micro_batch"),
        ("train", "micro_batch"),
    ):
        del earlier[part][name]
    path.write_text(json.dumps(earlier))
    with folder.claimed(config):
        pass
    config.unlearn.micro_batch = 8
    with (
        pytest.raises(ValueError, match=r"another config \(config.unlearn.micro_batch was None, now 8\)"),
        folder.claimed(config),
    ):
        pass
