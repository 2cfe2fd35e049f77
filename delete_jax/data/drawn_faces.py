"""Synthetic faces, drawn: for tests and a demo without photographs of people. They show that the flow works, nothing more."""

from __future__ import annotations

from typing import Any

import numpy as np

from delete_jax.data.dataset import Split
from delete_jax.data.memory import empty_images

MOST = 10**7
"""Images that can be drawn within a day."""


def draw_faces(identities: range, per_identity: int, size: int = 32, seed: int = 0) -> Split:
    """Draws faces: an identity is a geometry and colours; a sample is a pose, a light and noise.

    Args:
        identities: numbers, each of which is always drawn as the same person.
        per_identity: samples of each.
        size: of the square images, in pixels, at least 2.
        seed: of the samples.

    Returns:
        Images uint8 `[n, size, size, 3]` and labels int32 `[n]`, the position in `identities`.

    Raises:
        ValueError: there are more than `MOST`, they are too small to draw on, or they do not fit in memory.
    """
    count = len(identities) * per_identity
    if count > MOST:
        raise ValueError(f"{count} drawn faces: at most {MOST} can be drawn: give fewer people or images")
    if size < 2:
        raise ValueError(f"size={size}: a face is drawn on at least 2 pixels")
    images = empty_images((len(identities), per_identity, size, size, 3), "drawn faces")
    people = [_person(np.random.default_rng([1, identity])) for identity in identities]
    for identity, person, samples in zip(identities, people, images, strict=True):
        rng = np.random.default_rng([2, seed, identity])
        for sample in samples:
            sample[:] = _face(person, rng, size)
    labels = np.repeat(np.arange(len(people), dtype=np.int32), per_identity)
    return Split(images.reshape(-1, size, size, 3), labels)


def _person(rng: np.random.Generator) -> dict[str, Any]:
    """Lengths as fractions of half the image, colours in [0, 1]."""
    tone = rng.uniform(0.35, 0.95)
    uniform = rng.uniform
    return {
        "face": np.array([uniform(0.5, 0.72), uniform(0.66, 0.85)]),
        "skin": tone * np.array([1.0, uniform(0.72, 0.85), uniform(0.5, 0.75)]),
        "hair": uniform(0, 0.7, 3),
        "hairline": uniform(-0.55, -0.25),
        "eyes": np.array([uniform(0.18, 0.34), uniform(-0.2, 0.02)]),
        "eye_size": np.array([uniform(0.06, 0.13), uniform(0.05, 0.1)]),
        "iris": uniform(0, 0.6, 3),
        "brow": np.array([uniform(0.1, 0.2), uniform(0.015, 0.06), uniform(0.1, 0.22)]),
        "nose": np.array([uniform(0.04, 0.11), uniform(0.12, 0.25)]),
        "mouth": np.array([uniform(0.14, 0.34), uniform(0.03, 0.09), uniform(0.36, 0.52)]),
        "lips": np.array([uniform(0.5, 0.9), uniform(0.1, 0.4), uniform(0.1, 0.4)]),
    }


def _face(person: dict[str, Any], rng: np.random.Generator, size: int) -> np.ndarray:
    y, x = np.mgrid[:size, :size] * 2 / (size - 1) - 1
    angle, scale, turn = rng.normal(0, 0.1), rng.uniform(0.9, 1.1), rng.normal(0, 0.06)
    x, y = x - rng.normal(0, 0.05), y - rng.normal(0, 0.05)
    x, y = (np.cos(angle) * x + np.sin(angle) * y) / scale, (np.cos(angle) * y - np.sin(angle) * x) / scale
    picture = np.broadcast_to(rng.uniform(0.2, 0.8, 3), (size, size, 3)).copy()

    def ellipse(centre_x: float, centre_y: float, half_width: float, half_height: float, colour: np.ndarray) -> None:
        inside = 1 - np.hypot((x - centre_x) / half_width, (y - centre_y) / half_height)
        cover = np.clip(inside * min(half_width, half_height) * size / 2 + 0.5, 0, 1)[..., None]
        picture[:] = (1 - cover) * picture + cover * colour

    width, height = person["face"]
    ellipse(0, -0.08, width * 1.12, height * 1.08, person["hair"])
    ellipse(turn / 2, 0.06, width, height * 0.95, person["skin"])
    fringe = ((y < person["hairline"]) & (np.hypot(x / (width * 1.05), (y + 0.05) / height) < 1))[..., None]
    picture[:] = np.where(fringe, person["hair"], picture)
    distance, eye_y = person["eyes"]
    for side in (-1, 1):
        eye_x = side * distance + turn
        ellipse(eye_x, eye_y, person["eye_size"][0], person["eye_size"][1], np.full(3, 0.95))
        ellipse(eye_x + turn / 3, eye_y, person["eye_size"][1] * 0.7, person["eye_size"][1] * 0.9, person["iris"])
        ellipse(eye_x, eye_y - person["brow"][2], person["brow"][0], person["brow"][1], person["hair"] * 0.8)
    ellipse(1.5 * turn, eye_y + person["nose"][1] + 0.06, person["nose"][0], person["nose"][1], person["skin"] * 0.85)
    ellipse(turn, person["mouth"][2], person["mouth"][0], person["mouth"][1], person["lips"])
    light = 1 + rng.normal(0, 0.12) * x + rng.normal(0, 0.12) * y
    picture = picture * light[..., None] * rng.uniform(0.8, 1.15) + rng.normal(0, 0.03, picture.shape)
    return np.round(255 * np.clip(picture, 0, 1)).astype(np.uint8)
