"""The configs that come with the package."""

from __future__ import annotations

from pathlib import Path


def shipped() -> dict[str, Path]:
    """Lists the configs that come with the package, by name."""
    package = Path(__file__).parent.parent  # a checkout keeps them beside the package, an installation in it
    folder = next((path for path in (package / "configs", package.parent / "configs") if path.is_dir()), package)
    return {path.stem: path for path in sorted(folder.glob("*.py"))}
