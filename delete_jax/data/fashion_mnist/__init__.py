"""Fashion-MNIST as a TFDS dataset, from IDX files on disk."""
