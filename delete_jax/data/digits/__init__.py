"""scikit-learn's digits as a TFDS dataset."""

CLASS_NAMES = tuple("0123456789")
