"""The door for image files: what comes through, and how; what does not."""

import io
import os
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from delete_jax.data import images
from delete_jax.data.faces import load_faces
from delete_jax.data.images import decode, open_image, photo, pixels
from delete_jax.data.masks import open_mask

NOISE = np.random.default_rng(0).integers(0, 256, (4, 6, 3), np.uint8)


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(width: int, height: int, bits: int, colour: int, rows: bytes) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["png", "jpg", "webp"])
def test_upright(tmp_path, orientation, suffix):
    upright = np.zeros((16, 24, 3), np.uint8)  # four quarters of different shades: each orientation is another image
    upright[:8, 12:], upright[8:, :12], upright[8:, 12:] = 80, 160, 240
    stored = {
        1: lambda x: x,
        2: lambda x: x[:, ::-1],
        3: lambda x: x[::-1, ::-1],
        4: lambda x: x[::-1],
        5: lambda x: x.transpose(1, 0, 2),
        6: lambda x: np.rot90(x),
        7: lambda x: np.rot90(x, 2).transpose(1, 0, 2),
        8: lambda x: np.rot90(x, -1),
    }[orientation](upright)
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(np.ascontiguousarray(stored)).save(tmp_path / f"x.{suffix}", exif=exif, quality=95)
    found = pixels(photo(open_image(tmp_path / f"x.{suffix}"), "x"))
    assert found.shape == upright.shape
    assert np.abs(found.astype(int) - upright)[2:6, 2:10].max() < 12
    assert np.abs(found.astype(int) - upright)[10:14, 14:22].max() < 12
    assert np.abs(found.astype(int) - upright)[2:6, 14:22].max() < 12
    as_stored = decode(tmp_path / f"x.{suffix}", "x", upright=False)
    assert as_stored.size == stored.shape[1::-1]


def test_odd_exif_does_not_matter(tmp_path):
    Image.fromarray(NOISE).save(tmp_path / "x.png", exif=b"Exif\0\0no EXIF at all")
    assert (pixels(open_image(tmp_path / "x.png")) == NOISE).all()


@pytest.mark.parametrize("name", ["EPS", "TIFF", "PPM", "PCX", "TGA", "GIF", "ICO", "JPEG2000"])
def test_other_formats_under_the_name_of_a_png(tmp_path, monkeypatch, name):
    """Above all PostScript, for which Pillow would start the first `gs` of the PATH."""
    called = tmp_path / "called"
    (tmp_path / "gs").write_text(f"#!/bin/sh\ntouch {called}\n")
    (tmp_path / "gs").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    Image.fromarray(NOISE).save(tmp_path / "x.png", name)
    with pytest.raises(ValueError, match=r"x\.png: cannot be read as an image \(it is no PNG, JPEG, BMP or WEBP\)"):
        open_image(tmp_path / "x.png")
    assert not called.exists()


@pytest.mark.parametrize("name", ["PNG", "WEBP"])
def test_animated_images(tmp_path, name):
    frames = [Image.fromarray(NOISE), Image.fromarray(255 - NOISE)]
    frames[0].save(tmp_path / "x.png", name, save_all=True, append_images=frames[1:])
    with pytest.raises(ValueError, match=r"x\.png: cannot be read as an image \(it is animated\)"):
        open_image(tmp_path / "x.png")


def test_a_jpeg_with_a_preview_is_an_image(tmp_path):
    Image.fromarray(NOISE).save(tmp_path / "x.jpg", "MPO", save_all=True, append_images=[Image.fromarray(NOISE[:2])])
    assert open_image(tmp_path / "x.jpg").size == (6, 4)


@pytest.mark.parametrize("side", [8193, 9500, 13500, 40000])  # above ours, above Pillow's warning, above its error
def test_bombs(tmp_path, side, capfd):
    (tmp_path / "x.png").write_bytes(png(side, side, 8, 0, b""))
    with pytest.raises(
        ValueError, match=r"x\.png: is too large \(.*\); at most 64 megapixels are read: shrink it"
    ) as caught:
        open_image(tmp_path / "x.png")
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


def test_the_largest_image(tmp_path, monkeypatch):
    monkeypatch.setattr(images, "MAX_PIXELS", 24)
    Image.fromarray(NOISE).save(tmp_path / "x.png")
    assert open_image(tmp_path / "x.png").size == (6, 4)
    Image.new("L", (5, 5)).save(tmp_path / "y.png")
    with pytest.raises(ValueError, match="it has 5x5 pixels"):
        open_image(tmp_path / "y.png")


def test_sixteen_bits_of_colour_are_scaled(tmp_path):
    row = struct.pack(">6H", 0x0100, 0x8000, 0xFFFF, 0x00FF, 0x7F00, 0x1234)
    (tmp_path / "x.png").write_bytes(png(2, 1, 16, 2, b"\0" + row))
    assert pixels(photo(open_image(tmp_path / "x.png"), "x")).ravel().tolist() == [1, 128, 255, 0, 127, 0x12]


@pytest.mark.parametrize("mode", ["P", "RGBA", "LA", "1", "I;16", "CMYK", "transparent L", "transparent RGB"])
def test_modes_that_would_need_a_choice(tmp_path, mode):
    """Also as faces, where everything was converted: 16 bits became white, transparency showed what was hidden."""
    hidden = {"transparent L": {"transparency": 0}, "transparent RGB": {"transparency": (0, 0, 0)}}.get(mode, {})
    sixteen = Image.fromarray(np.full((8, 8), 3000, np.uint16))
    image = sixteen if mode == "I;16" else Image.new(mode.split()[-1], (8, 8))
    for person in "abc":
        (tmp_path / person).mkdir()
        for i in range(2):
            image.save(tmp_path / person / f"{i}.png", "JPEG" if mode == "CMYK" else "PNG", **hidden)
    few = {"pretrain": 1, "people": 1, "unseen": 1, "train_images": 1, "test_images": 1, "size": 8, "validation": 0}
    message = "has a transparent colour" if hidden else "has mode "
    with pytest.raises(ValueError, match=rf"a/0\.png: {message}.*convert it to grey \(L\) or RGB") as caught:
        load_faces(str(tmp_path), **few)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda p: p.unlink(), "no such file"),
        (lambda p: (p.unlink(), p.mkdir()), "is no file"),
        (lambda p: (p.unlink(), os.mkfifo(p)), "is no file"),
        (lambda p: (p.unlink(), p.symlink_to(p)), "cannot be read"),
        (lambda p: p.write_bytes(b""), "cannot be read as an image"),
        (lambda p: p.write_bytes(p.read_bytes()[:60]), "cannot be read as an image"),
        (lambda p: p.write_bytes(png(0, 0, 8, 0, b"")), "cannot be read as an image"),
    ],
)
def test_no_image(tmp_path, spoil, message):
    path = tmp_path / "x.png"
    Image.fromarray(NOISE).save(path)
    spoil(path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ValueError, match=rf"x\.png: {message}") as caught:
            open_image(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (png(2, 1, 4, 0, b"\0\x13"), "has 4 bits per pixel"),  # Pillow makes 17 and 51 of classes 1 and 3
        (png(2, 1, 2, 0, b"\0\x30"), "has 2 bits per pixel"),  # and 255, which is ignored, of class 3
        (png(2, 1, 16, 0, b"\0\0\1\0\3"), "has mode I;16"),
        (png(8, 1, 1, 0, b"\0\x30"), "has mode 1"),
    ],
    ids=["4 bits", "2 bits", "16 bits", "1 bit"],
)
def test_masks_whose_levels_are_not_what_was_stored(tmp_path, content, message):
    (tmp_path / "x.png").write_bytes(content)
    with pytest.raises(ValueError, match=rf"x\.png: {message}"):
        open_mask(tmp_path / "x.png")


def test_a_mask_is_a_png(tmp_path):
    Image.new("L", (8, 8), 3).save(tmp_path / "x.png", "JPEG")
    with pytest.raises(ValueError, match=r"\(it is no PNG\)"):
        open_mask(tmp_path / "x.png")
    (tmp_path / "y.png").write_bytes(png(2, 1, 8, 0, b"\0\1\3"))
    assert np.asarray(open_mask(Path(tmp_path / "y.png"))).tolist() == [[1, 3]]


def test_content_of_a_record():
    file = io.BytesIO()
    Image.fromarray(NOISE).save(file, "PNG")
    file.seek(0)
    assert (pixels(decode(file, "record 3")) == NOISE).all()
    with pytest.raises(ValueError, match="record 3: cannot be read as an image"):
        decode(io.BytesIO(b"%!PS"), "record 3")
