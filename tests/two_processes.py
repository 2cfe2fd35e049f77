"""Run by test_parallel in each of two processes: the same five steps over both; process 0 saves the parameters."""

import sys

import jax

process, port, folder = int(sys.argv[1]), sys.argv[2], sys.argv[3]
jax.distributed.initialize(coordinator_address=f"localhost:{port}", num_processes=2, process_id=process)

import numpy as np  # noqa: E402

from tests.test_parallel import five_steps  # noqa: E402

assert jax.device_count() == 2
for mode in ("pmap", "sharding"):
    params = five_steps(mode)
    if process == 0:
        np.savez(f"{folder}/{mode}.npz", *jax.tree.leaves(params))
jax.distributed.shutdown()
