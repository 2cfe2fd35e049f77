"""The same bits each time: what XLA is told on which device, and where the promise cannot be kept."""

import functools
import json
import os
import pathlib
from itertools import pairwise

import jax
import numpy as np
import optax
import pytest

import delete_jax as dj
from delete_jax import compiling, main, parallel
from delete_jax.config import Config
from delete_jax.methods import FORGET, METHODS, REMAIN, Setup
from delete_jax.options import Options
from delete_jax.run import stages
from delete_jax.run.folder import Folder
from delete_jax.step import init_state
from delete_jax.streams import split_streams
from tests import tiny
from tests.pages import snippets
from tests.processes import environment, run_code

FLAG = "--xla_gpu_deterministic_ops=true"


@pytest.fixture
def on(monkeypatch):
    def device(kind: str) -> None:
        monkeypatch.setattr(jax, "default_backend", lambda: kind)

    return device


@pytest.mark.parametrize(("kind", "told"), [("gpu", {compiling.DETERMINISTIC: True}), ("tpu", None)])
def test_what_xla_is_told(kind, told, on):
    on(kind)
    assert compiling.same_bits() == compiling.compiler_options() == told
    assert compiling.compiler_options(reproducible=False) is None


def test_another_kind_of_device_is_told_anew(on):
    """A process may use its CPU beside its GPU (`jax.default_device`)."""
    asked = []
    program = compiling.in_one_program(lambda: asked.append(jax.default_backend()))(lambda x: x + 1)
    for kind in ("cpu", "cpu", "gpu"):
        on(kind)
        assert program(np.float32(1)) == 2
    assert asked == ["cpu", "gpu"]


def test_on_a_cpu_it_makes_no_difference():
    assert compiling.same_bits() is None
    assert compiling.compiler_options(reproducible=False) == compiling.compiler_options()


def test_it_is_taken_by_this_xla():
    """The name is right: XLA refuses settings that it does not know."""
    function = jax.jit(lambda x: x + 1, compiler_options={compiling.DETERMINISTIC: True})
    assert function(np.float32(1)) == 2
    with pytest.raises(jax.errors.JaxRuntimeError):
        jax.jit(lambda x: x + 1, compiler_options={"xla_gpu_deterministic": True})(np.float32(1))


def test_the_step_is_compiled_as_asked(monkeypatch):
    asked = []
    monkeypatch.setattr(parallel, "compiler_options", lambda reproducible=True: asked.append(reproducible))
    parallel._trainer.cache_clear()
    settings = {"forget": [1], "epochs": 1, "batch_size": 8, "parallel": "jit"}
    for reproducible in (True, False):
        dj.unlearn(*tiny.network(), *tiny.samples(32), reproducible=reproducible, **settings, **tiny.PAPER)
    assert asked == [True, False]
    parallel._trainer.cache_clear()


def test_pmap_cannot_promise_it(on, monkeypatch):
    on("gpu")
    monkeypatch.delenv("XLA_FLAGS")
    with pytest.raises(ValueError, match=rf"use parallel='sharding', set XLA_FLAGS={FLAG} before JAX starts, or pass"):
        Options(parallel="pmap")
    assert not Options(parallel="pmap", reproducible=False, batch_norm="train", lr=1e-3).reproducible
    monkeypatch.setenv("XLA_FLAGS", f"--xla_a=1 {FLAG}")
    assert Options(parallel="pmap", batch_norm="train", lr=1e-3).reproducible
    with pytest.raises(ValueError, match="reproducible must be True or False, got 1"):
        Options(reproducible=1)


def test_a_store_knows_it(tmp_path):
    settings = {"forget": [1], "epochs": 1, "batch_size": 8, "parallel": "jit", "store": dj.Checkpoints(tmp_path)}
    dj.unlearn(*tiny.network(), *tiny.samples(32), **settings, **tiny.PAPER)
    with pytest.raises(ValueError, match=r"settings\.reproducible was None, now False"):
        dj.unlearn(*tiny.network(), *tiny.samples(32), reproducible=False, **settings, **tiny.PAPER)


@pytest.mark.parametrize(
    ("before", "arguments", "after"),
    [
        ("", [], FLAG),
        ("--xla_a=1", [], f"--xla_a=1 {FLAG}"),
        ("--xla_gpu_deterministic_ops=false", [], "--xla_gpu_deterministic_ops=false"),  # the user has the last word
        ("", ["--config.reproducible=False"], ""),
    ],
)
def test_the_command_tells_the_whole_process(before, arguments, after, monkeypatch, tmp_path):
    monkeypatch.setenv("XLA_FLAGS", before)
    seen = []
    monkeypatch.setattr(stages, "run_stages", lambda config, *_, **__: seen.append(config.reproducible))
    assert main.main(["delete-jax", "--config=digits", f"--workdir={tmp_path}", *arguments]) == 0
    assert os.environ["XLA_FLAGS"] == after
    assert seen == [not arguments]


def test_a_folder_of_an_earlier_version(tmp_path):
    """It did not say, and was reproducible on a CPU."""
    folder, config = Folder(tmp_path, None), Config()
    with folder.claimed(config):
        pass
    path = tmp_path / "config.json"
    earlier = json.loads(path.read_text())
    assert earlier.pop("reproducible") is True
    path.write_text(json.dumps(earlier))
    with folder.claimed(config):
        pass
    config.reproducible = False
    with pytest.raises(ValueError, match=r"config\.reproducible was True, now False"), folder.claimed(config):
        pass


@pytest.fixture
def programs(compiled):
    """Counts the programs that are compiled for a call, but for those that only change a dtype."""

    def count(function) -> int:
        jax.clear_caches()
        compiled.clear()
        function()
        return sum("convert_element_type" not in name for name in compiled)

    return count


def test_a_first_state_is_one_program(programs):
    """However many shapes the parameters have."""
    variables = {"params": {str(size): np.ones((size, 3), np.float32) for size in range(2, 9)}}
    assert programs(lambda: init_state(variables, optax.sgd(1.0, momentum=0.9))) == 1


SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in ("fisher", "wood_fisher", "l2ul_imp")]


@pytest.mark.parametrize("name", ["ssd", "salun", *SLOW])
def test_what_a_method_computes_once_takes_no_program_for_each_shape(programs, name):
    method, (images, labels) = METHODS[name](), tiny.samples(16)
    counted = []
    for widths in ([4], [4, 5, 6, 7]):
        sizes = [36, *widths, tiny.NUM_CLASSES]
        places = [f"layer{i}" for i in range(len(sizes) - 1)]
        params = {place: np.ones(shape, np.float32) for place, shape in zip(places, pairwise(sizes), strict=True)}

        def apply(variables, x, places=places):
            return functools.reduce(lambda h, place: h @ variables["params"][place], places, x.reshape(len(x), -1))

        model = dj.Model(apply, lambda variables, x, key, apply=apply: (apply(variables, x), variables))
        streams = split_streams(images.astype(np.float32), labels, [1], tiny.NUM_CLASSES, [FORGET, REMAIN])
        streams = {kind: {column: np.asarray(streams[kind][column]) for column in streams[kind]} for kind in streams}
        setup = Setup(
            model, {"params": params}, lambda x: x, streams, tiny.NUM_CLASSES, (1,), jax.random.key(0), batch_size=3,
            classifier=(places[-1],),
        )  # fmt: skip
        counted.append(programs(lambda setup=setup: (method.edit or method.prepare)(setup)))
    assert counted[1] <= counted[0] < 30


@pytest.fixture
def no_cache(monkeypatch):
    """As in a process that was told nothing of a cache."""
    before = jax.config.jax_compilation_cache_dir, jax.config.jax_persistent_cache_min_compile_time_secs
    monkeypatch.delenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS")  # 0 in `conftest`
    jax.config.update("jax_compilation_cache_dir", None)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 1.0)
    yield
    jax.config.update("jax_compilation_cache_dir", before[0])
    jax.config.update("jax_persistent_cache_min_compile_time_secs", before[1])


def settings() -> tuple[str | None, float]:
    return jax.config.jax_compilation_cache_dir, jax.config.jax_persistent_cache_min_compile_time_secs


def test_programs_are_kept_in_the_users_cache(no_cache, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    (snippet,) = snippets("devices", "dj.use_compilation_cache()  # or a folder of your own")
    exec(snippet, {"dj": dj})
    assert settings() == (str(tmp_path / "delete_jax" / "xla"), 0.0)
    assert (tmp_path / "delete_jax" / "xla").is_dir()


def test_programs_are_kept_where_the_user_says(no_cache, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert dj.use_compilation_cache("mine") == tmp_path / "mine"  # also after the process has gone elsewhere
    assert dj.use_compilation_cache() == tmp_path / "mine"
    assert dj.use_compilation_cache(tmp_path / "other") == tmp_path / "other"
    assert settings() == (str(tmp_path / "other"), 0.0)


@pytest.mark.parametrize("folder", ["{tmp}/file/below", "{tmp}/file", "/proc/nope"])
@pytest.mark.parametrize("is_given", [True, False])
def test_a_folder_that_cannot_keep_programs(no_cache, tmp_path, monkeypatch, folder, is_given):
    """Refused in the library; the command goes on without."""
    (tmp_path / "file").touch()
    folder = folder.format(tmp=tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", folder)
    with pytest.raises(ValueError, match=rf"cannot be kept in {folder}.*give another folder"):
        dj.use_compilation_cache(*[folder] * is_given)
    main._keep_programs()
    assert settings() == (None, 1.0)


def test_nobodys_home(no_cache, monkeypatch):
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    with pytest.raises(ValueError, match="no home for compiled programs: give a folder"):
        dj.use_compilation_cache()
    main._keep_programs()
    assert settings() == (None, 1.0)


def test_a_damaged_cache_is_harmless(tmp_path):
    """In processes of their own, for jax opens its cache once: half of each entry is left by a killed run."""
    code = (
        "import delete_jax as dj, jax, jax.numpy as jnp; print(dj.use_compilation_cache())\n"
        "print(jax.jit(lambda x: jnp.sin(x) @ x.T)(jnp.ones((9, 9))).sum())"
    )
    own = environment(XLA_FLAGS=None, JAX_COMPILATION_CACHE_DIR=None, XDG_CACHE_HOME=str(tmp_path))

    def said() -> list[str]:
        done = run_code(code, env=own)
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout.split()

    folder, cold = said()
    entries = [path for path in pathlib.Path(folder).iterdir() if path.name.endswith("-cache")]
    assert entries
    for path in entries:
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert said() == [folder, cold]
