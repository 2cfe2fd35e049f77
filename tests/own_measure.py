"""A config file that brings a measure: one function and one row of the table. Variants are rows with a mistake."""

from delete_jax.config import Config, DataConfig, ModelConfig, TrainConfig, UnlearnConfig
from delete_jax.metrics import MEASURES, Measure
from delete_jax.tasks import Classification


def sureness(evidence):
    """The mean largest probability on the test images."""
    return evidence.test.max(-1).mean()


ROW = Measure(
    "sureness", sureness, "", "percent", "Sureness", "sureness", "Mean largest probability on the test images."
)
MISTAKES = {
    "fails": ROW._replace(function=lambda evidence: evidence.tset.max()),
    "fails_beside_nothing": ROW._replace(function=lambda evidence: float(evidence.original.test.max())),
    "no_number": ROW._replace(function=lambda evidence: evidence.test.max(-1)),
    "no_way_to_show": ROW._replace(show="per cent"),
    "other_name": ROW._replace(name="surety"),
}


def get_config(variant=""):
    MEASURES["sureness"] = MISTAKES.get(variant, ROW)
    return Config(
        task=Classification(measures=("sureness",)),
        data=DataConfig(name="digits"),
        model=ModelConfig(name="resnet_tiny"),
        train=TrainConfig(epochs=2, batch_size=16, augment=()),
        unlearn=UnlearnConfig(forget=(3,), epochs=1, batch_size=8, augment=()),
        retrain=False,
        parallel="jit",
    )
