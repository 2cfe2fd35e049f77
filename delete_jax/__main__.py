"""`python -m delete_jax`: the command `delete-jax`."""

from delete_jax.main import run

if __name__ == "__main__":
    run()
