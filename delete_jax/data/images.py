"""The one door through which image files come: which formats, how large, which way up, in which modes.

What is not meant is never decoded: for PostScript Pillow would start an external program, whatever the file is called.
"""

from __future__ import annotations

import os
import stat
import warnings
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from delete_jax.data.paths import show

FORMATS = ("PNG", "JPEG", "BMP", "WEBP")
"""What an image may be, whatever its suffix says."""

SUFFIXES = (".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".webp")
"""What is taken for an image in a folder."""

MAX_SIDE = 2**13
MAX_PIXELS = MAX_SIDE**2
"""64 megapixels: what is larger is a mistake, or made to fill the memory."""

_CHANNELS = {"L": 1, "RGB": 3}
# EXIF's orientation -> the name of Pillow's operation that undoes it. `ImageOps.exif_transpose` also writes the remaining
# EXIF anew, and fails where that is odd.
_UPRIGHT = {
    2: "FLIP_LEFT_RIGHT",
    3: "ROTATE_180",
    4: "FLIP_TOP_BOTTOM",
    5: "TRANSPOSE",
    6: "ROTATE_270",
    7: "TRANSVERSE",
    8: "ROTATE_90",
}


def open_image(path: str | Path, formats: tuple[str, ...] = FORMATS) -> Any:
    """Opens an image file: returns a decoded PIL image, turned upright.

    Raises:
        ValueError: there is no such file, or `decode` refuses it; the message names it.
    """
    try:
        mode = os.stat(path).st_mode
    except (FileNotFoundError, NotADirectoryError):
        raise ValueError(f"{show(path)}: no such file, and the split lists it") from None
    except OSError as error:
        raise ValueError(f"{show(path)}: cannot be read ({error.strerror})") from None
    if not stat.S_ISREG(mode):  # opening a pipe would wait for ever
        raise ValueError(f"{show(path)}: is no file (but a folder, a pipe or a device); remove it")
    return decode(Path(path), show(path), formats)


def decode(source: Path | BinaryIO, name: str, formats: tuple[str, ...] = FORMATS, upright: bool = True) -> Any:
    """Decodes a PIL image, of any mode.

    Args:
        source: a file, or its content.
        name: of the image, for the message.
        formats: what it may be, by Pillow's names.
        upright: turn it as its EXIF orientation says; not where masks lie over the pixels as they are stored.

    Raises:
        ValueError: it is damaged, of another format, animated, or has more than `MAX_PIXELS`.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        # Pillow warns of large images, odd EXIF and the like: what matters of it is refused here.
        with warnings.catch_warnings(action="ignore"), Image.open(source, formats=formats) as image:
            if image.width * image.height > MAX_PIXELS:
                raise Image.DecompressionBombError(f"it has {image.width}x{image.height} pixels")
            if image.format != "MPO" and getattr(image, "is_animated", False):  # MPO: a JPEG with a preview behind it
                raise ValueError("it is animated")
            image.load()
            turn = _UPRIGHT.get(_orientation(image)) if upright else None
            return image.transpose(Image.Transpose[turn]) if turn else image.copy()
    except Image.DecompressionBombError as error:
        raise ValueError(
            f"{name}: is too large ({error}); at most {MAX_PIXELS >> 20} megapixels are read: shrink it"
        ) from None
    except UnidentifiedImageError:
        *others, last = formats
        kinds = f"{', '.join(others)} or {last}" if others else last
        raise ValueError(
            f"{name}: cannot be read as an image (it is no {kinds}); convert, replace or remove it"
        ) from None
    # Pillow says damaged in many ways: SyntaxError for PNG chunks, struct.error, OSError, ...
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"{name}: cannot be read as an image ({reason}); replace or remove it") from error


def _orientation(image: Any) -> Any:
    try:
        return image.getexif().get(0x0112, 1)
    except Exception:  # what cannot be read says nothing
        return 1


def photo(image: Any, name: str) -> Any:
    """Returns an image if it is a photograph as networks take it: grey or RGB, 8 bits per channel, nothing transparent.

    Raises:
        ValueError: it has another mode (a palette, transparency, 16 bits, CMYK): a conversion would have to be chosen, and the
            obvious ones clip or show what was hidden.
    """
    if image.mode not in _CHANNELS:
        raise ValueError(f"{name}: has mode {image.mode}; convert it to grey (L) or RGB, 8 bits per channel")
    if image.has_transparency_data:
        raise ValueError(f"{name}: has a transparent colour; convert it to grey (L) or RGB without one")
    return image


def pixels(image: Any) -> np.ndarray:
    """Converts a photograph to uint8 `[h, w, c]` with 1 or 3 channels."""
    return np.asarray(image).reshape(image.height, image.width, _CHANNELS[image.mode])


def square(image: Any, size: int) -> Any:
    """Cuts the middle square from a PIL image and scales its side to `size` pixels (bilinear)."""
    from PIL import Image

    width, height = image.size
    side = min(width, height)
    left, top = (width - side) // 2, (height - side) // 2
    return image.resize((size, size), Image.Resampling.BILINEAR, box=(left, top, left + side, top + side))
