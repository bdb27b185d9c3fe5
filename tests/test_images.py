"""Images as 8 bits, in grids, under captions and in files."""

from __future__ import annotations

import contextlib
import errno
import itertools
import math
import os
import re

import numpy as np
import pytest
import torch
from gantool.errors import DiskError, GantoolError, RunError
from gantool.images import caption, grid, save, save_each, to_pixels
from PIL import Image

from disks import FailingDisk


def flat(*values, channels=1, height=2, width=3):
    """One image for each value of 0 to 255, all its pixels alike."""
    return torch.tensor(values).view(-1, 1, 1, 1).expand(-1, channels, height, width) / 127.5 - 1


def listing(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize(
    ("value", "pixel"),
    [
        (-1.0, 0),
        (0.0, 128),
        (1.0, 255),
        (-1 + 1 / 255, 1),  # exactly half a step is rounded up
        (-1 + 0.99 / 255, 0),
        (1 - 1.01 / 255, 254),
        (-7.0, 0),
        (7.0, 255),
        (math.inf, 255),
        (-math.inf, 0),
        (math.nan, 0),
    ],
)
@pytest.mark.parametrize("kind", [torch.float32, torch.float64])
def test_values_are_rounded_and_clamped_to_8_bits(value, pixel, kind):
    assert to_pixels(torch.full((1, 1, 1, 1), value, dtype=kind)).item() == pixel


def test_every_pixel_value_survives():
    values = torch.arange(256)

    found = to_pixels((values / 127.5 - 1).view(1, 1, 16, 16))

    assert found.dtype == np.uint8
    assert found.ravel().tolist() == values.tolist()
    for half in (torch.bfloat16, torch.float16):
        assert to_pixels(torch.tensor([-1.0, 0, 1], dtype=half).view(1, 1, 1, 3)).ravel().tolist() == [0, 128, 255]


def test_channels_go_last_and_the_input_stays():
    images = torch.rand(2, 3, 4, 5, requires_grad=True)
    before = images.detach().clone()

    found = to_pixels(images)

    assert found.shape == (2, 4, 5, 3)
    assert found[1, 2, 3, 0] == math.floor((images[1, 0, 2, 3].item() + 1) * 127.5 + 0.5)
    assert torch.equal(images, before)


# Grids


def test_the_layout_of_a_grid_is_exact():
    picture = grid(flat(10, 20, 30, 40, 50), padding=1, scale=1)

    row = [255, 10, 10, 10, 255, 20, 20, 20, 255, 30, 30, 30, 255]
    last = [255, 40, 40, 40, 255, 50, 50, 50, 255, 255, 255, 255, 255]
    white = [255] * 13
    assert picture.mode == "L"
    assert np.asarray(picture).tolist() == [white, row, row, white, last, last, white]


def test_tiles_are_in_reading_order_and_enlarged_by_repeating_pixels():
    images = torch.rand(6, 3, 2, 4) * 2 - 1

    picture = grid(images, columns=3, padding=0, scale=5)

    assert picture.mode == "RGB"
    found = np.asarray(picture).reshape(2, 10, 3, 20, 3).transpose(0, 2, 1, 3, 4).reshape(6, 10, 20, 3)
    assert np.array_equal(found, to_pixels(images).repeat(5, 1).repeat(5, 2))


@pytest.mark.parametrize(
    ("count", "columns", "wanted"),
    [(1, None, (1, 1)), (2, None, (2, 1)), (5, None, (3, 2)), (64, None, (8, 8)), (5, 1, (1, 5)), (3, 9, (3, 1))],
)
def test_a_grid_is_nearly_square_unless_its_columns_are_given(count, columns, wanted):
    picture = grid(flat(*[0] * count, height=8, width=8), columns=columns, padding=0, scale=1)

    assert (picture.width // 8, picture.height // 8) == wanted


@pytest.mark.parametrize(("side", "scale"), [(1, 56), (14, 4), (28, 2), (32, 2), (56, 1), (64, 1), (256, 1)])
def test_small_images_are_enlarged_unless_they_are_very_many(side, scale):
    assert grid(flat(0, height=side, width=side), padding=0).size == (side * scale, side * scale)
    assert grid(flat(0, height=28, width=28).expand(10_000, -1, -1, -1)).size == (3002, 3002)


@pytest.mark.parametrize("shape", [(0, 1, 4, 4), (1, 2, 4, 4), (1, 4, 4, 4)])
def test_a_grid_of_no_images_or_of_other_channels_is_refused(shape):
    with pytest.raises(ValueError, match="images: shape"):
        grid(torch.zeros(shape))


# Captions


def test_captions_are_under_their_tiles():
    plain = grid(flat(0, 0, 0, height=64, width=64), columns=2)
    picture = grid(flat(0, 0, 0, height=64, width=64), columns=2, captions=["one", "", "three"])

    pixels = np.asarray(picture)
    strip = (picture.height - plain.height) // 2
    first, second = 2 + 64, 2 + 64 + strip + 2 + 64
    assert picture.width == plain.width
    assert strip >= 12
    assert pixels[first : first + strip, 2:66].min() < 100
    assert pixels[first : first + strip, 68:132].min() == 255
    assert pixels[second : second + strip, 2:66].min() < 100
    assert (pixels[2:66, 2:66] == 0).all()
    assert (pixels[2 + 64 + strip + 2 : second, 2:66] == 0).all()
    assert (pixels[:, -2:] == 255).all()


def test_cells_widen_for_a_long_caption_up_to_a_limit():
    texts = ("x", "trial 12 · FID 23.4", "m" * 99)

    widths = [grid(flat(0, height=56, width=56), captions=[text]).width - 4 for text in texts]

    assert widths[0] == 56 < widths[1] < widths[2] == 160
    with pytest.raises(ValueError, match="captions: 1 given for 2 images"):
        grid(flat(0, 0), captions=["one"])


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_caption_adds_a_strip_above(mode):
    picture = Image.new(mode, (200, 50), "black")

    found = caption(picture, "epoch 12")

    strip = found.height - 50
    assert (found.mode, found.width) == (mode, 200)
    assert found.crop((0, strip, 200, found.height)).tobytes() == picture.tobytes()
    text = np.asarray(found.crop((0, 0, 200, strip)).convert("L"))
    assert text.min() < 60
    assert text.max() == 255
    assert found.tobytes() != caption(picture, "epoch 13").tobytes()


@pytest.mark.parametrize("width", [1, 8, 60, 500, 3000])
def test_the_text_of_a_caption_changes_no_size(width):
    picture = Image.new("L", (width, 10))

    sizes = {caption(picture, text).size for text in ("", "x", "a long text " * 99, "two\nlines", "日本 é → ×")}

    assert [size[0] for size in sizes] == [width]


def test_text_that_the_font_lacks_is_spelled():
    picture = Image.new("L", (300, 10))

    assert caption(picture, "Fréchet × 2 → 3\n4").tobytes() == caption(picture, "Frechet x 2 -> 3 4").tobytes()
    assert caption(picture, "日").tobytes() == caption(picture, "?").tobytes()


# Files


@pytest.mark.parametrize(
    ("ending", "form"), [(".png", "PNG"), (".PNG", "PNG"), (".jpg", "JPEG"), (".jpeg", "JPEG"), (".webp", "WEBP")]
)
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_an_image_is_saved_by_the_ending_of_its_path(ending, form, mode, tmp_path):
    path = tmp_path / "new" / "folder" / f"picture{ending}"
    picture = grid(torch.rand(4, 1 if mode == "L" else 3, 8, 8) * 2 - 1)

    save(picture, path)

    with Image.open(path) as found:
        assert (found.format, found.size) == (form, picture.size)
        assert form == "WEBP" or found.mode == mode
        if form != "JPEG":
            assert found.convert(mode).tobytes() == picture.tobytes()
    assert listing(path.parent) == [path.name]
    if os.name == "posix":  # with the usual permissions
        (tmp_path / "usual").touch()
        assert path.stat().st_mode == (tmp_path / "usual").stat().st_mode


@pytest.mark.parametrize(
    ("problem", "kind", "text"),
    [
        (OSError("encoder error -2"), RunError, r"a\.png: cannot be written \(encoder error -2\); choose another size"),
        (ValueError("too large"), RunError, r"a\.png: cannot be written \(too large\); choose another size or format$"),
        (KeyError("a bug"), KeyError, "a bug"),
        (KeyboardInterrupt("stop"), KeyboardInterrupt, "stop"),
    ],
)
def test_a_failing_encoder_keeps_the_old_file_and_nothing_else(problem, kind, text, tmp_path, monkeypatch):
    def failing(image, stream, **options):
        stream.write(b"half a pict")
        raise problem

    (tmp_path / "a.png").write_bytes(b"the old file")
    monkeypatch.setattr(Image.Image, "save", failing)

    with pytest.raises(kind, match=text):
        save(Image.new("L", (1, 1)), tmp_path / "a.png")

    assert (tmp_path / "a.png").read_bytes() == b"the old file"
    assert listing(tmp_path) == ["a.png"]


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.webp", "new/folder/a.png"])
@pytest.mark.parametrize(
    ("number", "text"),
    [
        (errno.ENOSPC, "the disk is full; make room and start again"),
        (errno.EFBIG, "the disk is full; make room and start again"),
        (errno.EIO, r"cannot be written \(.+\); check the folder and its permissions"),
    ],
)
def test_a_disk_that_fails_keeps_the_old_file_and_nothing_else(number, text, name, tmp_path):
    (tmp_path / "a.png").write_bytes(b"the old file")
    for at in itertools.count(1):
        disk = FailingDisk(tmp_path, at, number)
        with disk.mounted(), contextlib.suppress(DiskError):
            save(Image.new("L", (9, 9)), tmp_path / name)
        if not disk.failed:
            break
        assert (tmp_path / "a.png").read_bytes() == b"the old file"
        assert listing(tmp_path) == ["a.png"]
    assert at > 3
    with FailingDisk(tmp_path, 1, number).mounted(), pytest.raises(DiskError, match=text):
        save(Image.new("L", (9, 9)), tmp_path / "other" / "b.png")


def test_of_several_images_all_are_written_or_none(tmp_path):
    (tmp_path / "out").mkdir()
    save_each(torch.zeros(1, 1, 4, 4), tmp_path / "out", ["a"])
    with FailingDisk(tmp_path, 8, errno.ENOSPC).mounted(), pytest.raises(DiskError, match="the disk is full"):
        save_each(torch.zeros(3, 1, 4, 4), tmp_path / "out", ["a", "b/x", "c"])
    assert listing(tmp_path) == ["out"]
    assert listing(tmp_path / "out") == ["a.png"]


@pytest.mark.parametrize(
    ("name", "size", "kind", "text"),
    [
        ("a.bmpp", 1, GantoolError, r"unknown ending '\.bmpp'; end it in \.png or \.jpg or \.jpeg or \.webp$"),
        ("a", 1, GantoolError, r"unknown ending ''; end it in \.png or \.jpg or \.jpeg or \.webp$"),
        ("file/a.png", 1, DiskError, r"a\.png: cannot be written \(.+\); check the folder and its permissions$"),
        ("folder.png", 1, DiskError, r"folder\.png: cannot be written \(.+\); check the folder"),
        ("a.webp", 16400, RunError, r"a\.webp: cannot be written \(.+\); choose another size or format$"),
    ],
)
def test_an_image_that_cannot_be_written_leaves_nothing(name, size, kind, text, tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "folder.png").mkdir()

    with pytest.raises(kind, match=text):
        save(Image.new("L", (size, 1)), tmp_path / name)

    assert listing(tmp_path) == ["file", "folder.png"]


@pytest.mark.parametrize("channels", [1, 3])
def test_every_image_is_saved_under_its_name(channels, tmp_path):
    images = torch.rand(3, channels, 4, 5) * 2 - 1

    paths = save_each(images, tmp_path / "out", ["a", "b.2", "cat/c"])

    assert paths == [tmp_path / "out" / name for name in ("a.png", "b.2.png", "cat/c.png")]
    for path, wanted in zip(paths, to_pixels(images), strict=True):
        with Image.open(path) as found:
            assert found.mode == ("L" if channels == 1 else "RGB")
            assert np.array_equal(np.asarray(found).reshape(4, 5, channels), wanted)
    for names in (["a"], ["a", "a", "b"]):
        with pytest.raises(ValueError, match=re.escape("names: ")):
            save_each(images, tmp_path, names)
