"""A measure from outside: one function and one row.

delete-jax --config=my_measure.py --workdir=runs/measure
"""

from delete_jax.config import Config, UnlearnConfig
from delete_jax.metrics import MEASURES, Measure
from delete_jax.tasks import Classification


def sureness(evidence):
    """The mean largest probability on the test images; `evidence.test` is `[n, k]`."""
    return evidence.test.max(-1).mean()


MEASURES["sureness"] = Measure(
    name="sureness",
    function=sureness,
    direction="",
    show="percent",
    title="Sureness",
    short="sureness",
    text="Mean largest probability on the test images.",
)


def get_config(variant=""):
    return Config(task=Classification(measures=("sureness",)), unlearn=UnlearnConfig(forget=(3,), batch_size=32))
