"""What every report says: about the data, the network, the method, what it cost, and the figures of each network."""

from __future__ import annotations

from typing import Any

import jax

from delete_jax import data
from delete_jax.config import counted, plain
from delete_jax.identity import digest
from delete_jax.reports.made_with import device, now, versions
from delete_jax.reports.record import digest as digest_of
from delete_jax.result import Result, Row
from delete_jax.tasks import Measured, Run
from delete_jax.unlearning import cautions


def make_record(
    run: Run, networks: dict[str, Result], measured: Measured, command: str, config: dict[str, Any]
) -> dict[str, Any]:
    """Makes the record of a run, as `delete_jax.reports.write_report` takes it; config: what its `config.json` says."""
    dataset, forget = run.data.dataset, run.data.forget
    original, retrained, unlearned = networks["original"], networks.get("retrained"), networks["unlearned"]
    retrain_seconds = retrained.seconds if retrained else None
    num_steps, searching = len(unlearned.history), search_seconds(unlearned)
    more = dict(measured.record)
    method = counted(run.config)
    digests = {name: digest(network.variables) for name, network in networks.items()}
    if num_steps:
        method |= {"epochs": unlearned.history[-1]["epoch"], "num_steps": num_steps}
    if unlearned.search:
        method["lr"] = unlearned.lr
    return {
        "format": 1,
        "created": now(),
        "command": command,
        "versions": versions(),
        "device": device(),
        "reproducible": run.config.reproducible,
        "task": {name: value for name, value in plain(run.config)["task"].items() if value is not None},
        "dataset": {
            "name": dataset.name,
            "digest": dataset.digest,
            "num_train": len(dataset.train.labels),
            "num_validation": len(dataset.validation.labels),
            "num_test": len(dataset.test.labels),
            "class_names": list(dataset.class_names),
        },
        "forget": {
            "classes": list(forget),
            "names": [dataset.class_names[class_] for class_ in forget],
            "num_samples": len(measured.erased.labels),
            "digest": data.split_digest(measured.erased),
            **({"erased": list(run.data.erased)} if run.data.erased else {}),
            **({"files": list(run.data.files)} if run.data.files else {}),
            **more.pop("forget", {}),
        },
        "model": {
            "name": run.description["name"],
            "num_parameters": sum(leaf.size for leaf in jax.tree.leaves(original.variables["params"])),
        },
        "method": method,
        **({"search": list(unlearned.search), "notes": cautions(unlearned.search)} if unlearned.search else {}),
        "networks": {
            name: {"digest": digests[name], "source": network.source, "metrics": measured.metrics[name]}
            for name, network in networks.items()
        },
        "cost": {
            "teacher_seconds": original.seconds or None,
            "retrain_seconds": retrain_seconds,
            "unlearn_seconds": unlearned.seconds,
            **({"search_seconds": searching} if unlearned.search else {}),
            "unlearn_compile_seconds": unlearned.compile_seconds,
            "peak_bytes": unlearned.peak_bytes,
            "speedup": retrain_seconds / unlearned.seconds if retrain_seconds else None,
            "samples_per_second": (
                num_steps * run.config.unlearn.batch_size / (unlearned.seconds - searching) if num_steps else None
            ),
        },
        "history": _columns(unlearned.history, ("step", "loss", "forgetting", "retention", "grad_norm")),
        "curve": _columns(unlearned.evaluations, ("step", "acc_f", "acc_r")),
        **more,
        "run": {"id": run_id(digest_of(config), digests), "config": digest_of(config)},
    }


def run_id(config: str, networks: dict[str, str]) -> str:
    """Computes the id of a run, 16 hexadecimal digits: of the digest of its config, and of those of its networks by name. A run that
    is made again with the same bits has the same id."""
    return digest_of([config, networks])[:16]


def search_seconds(result: Result) -> float:
    """What was spent to find the rate, or on judging and on trainings that were not taken, apart from the training of the network."""
    taken = next((row for row in result.search if row.get("taken")), None)
    if taken is not None:
        return result.seconds - taken["training_seconds"]
    return sum(row.get("seconds", 0) for row in result.search)


def _columns(rows: list[Row], names: tuple[str, ...]) -> dict[str, list[Any]]:
    return {name: [row[name] for row in rows] for name in names if rows and name in rows[0]}
