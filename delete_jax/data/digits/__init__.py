"""scikit-learn's digits as a TFDS dataset."""
