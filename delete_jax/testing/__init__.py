"""Checks for methods, networks and tasks of your own: the contracts that those of the package are tested for.

Each check runs what it is given on tiny data and returns None. It raises AssertionError, whatever is wrong: a broken contract is a
failed test. The message is one line: what was found, what is expected, and what to do. Nothing here needs pytest.
"""

from delete_jax.testing.method import check_method
from delete_jax.testing.network import check_network
from delete_jax.testing.task import check_task

__all__ = ["check_method", "check_network", "check_task"]
