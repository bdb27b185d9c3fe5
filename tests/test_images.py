from __future__ import annotations

import errno
import math
import os
import re
import subprocess
import sys

import numpy as np
import pytest
import torch
from gantool.errors import GantoolError, ResourceError, RunError
from gantool.images import caption, grid, save, save_each, to_pixels
from gantool.inference.animation import animate
from PIL import Image


def flat(*values: int, channels: int = 1, height: int = 2, width: int = 3) -> torch.Tensor:
    """One image for each value of 0 to 255, all its pixels alike."""
    return torch.tensor(values).view(-1, 1, 1, 1).expand(-1, channels, height, width) / 127.5 - 1


def frames(count: int, *, mode: str = "L", size: tuple[int, int] = (40, 30)) -> list[Image.Image]:
    """Images that all differ, and widely."""
    return [Image.new("L", size, 255 * index // max(1, count - 1)).convert(mode) for index in range(count)]


def listing(folder) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# to_uint8


@pytest.mark.parametrize(
    ("value", "pixel"),
    [
        (-1.0, 0),
        (0.0, 128),
        (1.0, 255),
        (-1 + 1 / 255, 1),  # exactly half a step: up
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
def test_values(value, pixel, kind):
    assert to_pixels(torch.full((1, 1, 1, 1), value, dtype=kind)).item() == pixel


def test_every_pixel_value_survives():
    values = torch.arange(256)
    found = to_pixels((values / 127.5 - 1).view(1, 1, 16, 16))
    assert found.dtype == np.uint8
    assert found.ravel().tolist() == values.tolist()


def test_channels_go_last_and_the_input_stays():
    images = torch.rand(2, 3, 4, 5, requires_grad=True)
    before = images.detach().clone()
    found = to_pixels(images)
    assert found.shape == (2, 4, 5, 3)
    assert found[1, 2, 3, 0] == math.floor((images[1, 0, 2, 3].item() + 1) * 127.5 + 0.5)
    assert torch.equal(images, before)


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
def test_half_precision(kind):
    assert to_pixels(torch.tensor([-1.0, 0, 1], dtype=kind).view(1, 1, 1, 3)).ravel().tolist() == [0, 128, 255]


# grid


def test_layout_is_exact():
    picture = grid(flat(10, 20, 30, 40, 50), padding=1, scale=1)
    row = [255, 10, 10, 10, 255, 20, 20, 20, 255, 30, 30, 30, 255]
    last = [255, 40, 40, 40, 255, 50, 50, 50, 255, 255, 255, 255, 255]
    white = [255] * 13
    assert picture.mode == "L"
    assert np.asarray(picture).tolist() == [white, row, row, white, last, last, white]


def test_enlargement_repeats_pixels():
    image = torch.rand(1, 3, 2, 3) * 2 - 1
    found = np.asarray(grid(image, padding=0, scale=4))
    assert np.array_equal(found, to_pixels(image)[0].repeat(4, 0).repeat(4, 1))


def test_tiles_are_in_reading_order():
    images = torch.rand(6, 3, 4, 4) * 2 - 1
    found = np.asarray(grid(images, columns=3, padding=0, scale=1))
    for index, tile in enumerate(to_pixels(images)):
        row, column = divmod(index, 3)
        assert np.array_equal(found[row * 4 : row * 4 + 4, column * 4 : column * 4 + 4], tile)


@pytest.mark.parametrize(("channels", "mode"), [(1, "L"), (3, "RGB")])
def test_mode(channels, mode):
    assert grid(flat(0, channels=channels)).mode == mode
    assert grid(flat(0, channels=channels), captions=["text"]).mode == mode


@pytest.mark.parametrize(
    ("count", "columns", "wanted"),
    [
        (1, None, (1, 1)),
        (2, None, (2, 1)),
        (5, None, (3, 2)),
        (64, None, (8, 8)),
        (5, 1, (1, 5)),
        (3, 9, (3, 1)),
    ],
)
def test_columns_and_rows(count, columns, wanted):
    picture = grid(flat(*[0] * count, height=8, width=8), columns=columns, padding=0, scale=1)
    assert (picture.width // 8, picture.height // 8) == wanted


@pytest.mark.parametrize(("side", "scale"), [(1, 56), (14, 4), (28, 2), (32, 2), (56, 1), (64, 1), (256, 1)])
def test_small_images_are_enlarged(side, scale):
    assert grid(flat(0, height=side, width=side), padding=0).size == (side * scale, side * scale)


def test_a_grid_of_very_many_is_not_enlarged():
    assert grid(flat(0, height=28, width=28).expand(10_000, -1, -1, -1)).size == (3002, 3002)


@pytest.mark.parametrize("shape", [(0, 1, 4, 4), (1, 2, 4, 4), (1, 4, 4, 4)])
def test_grid_refuses(shape):
    with pytest.raises(ValueError, match="images: shape"):
        grid(torch.zeros(shape))


# Captions


def test_captions_are_under_their_tiles():
    plain = grid(flat(0, 0, 0, height=64, width=64), columns=2)
    picture = grid(flat(0, 0, 0, height=64, width=64), columns=2, captions=["one", "", "three"])
    pixels = np.asarray(picture)
    strip = (picture.height - plain.height) // 2
    assert picture.width == plain.width
    assert strip >= 12
    first, second = 2 + 64, 2 + 64 + strip + 2 + 64
    assert pixels[first : first + strip, 2:66].min() < 100
    assert pixels[first : first + strip, 68:132].min() == 255
    assert pixels[second : second + strip, 2:66].min() < 100
    assert (pixels[2:66, 2:66] == 0).all()
    assert (pixels[2 + 64 + strip + 2 : second, 2:66] == 0).all()
    assert (pixels[:, -2:] == 255).all()


def test_cells_widen_for_a_long_caption_up_to_a_limit():
    widths = [
        grid(flat(0, height=56, width=56), captions=[text]).width - 4 for text in ("x", "trial 12 · FID 23.4", "m" * 99)
    ]
    assert widths[0] == 56 < widths[1] < widths[2] == 160


def test_captions_must_be_as_many_as_images():
    with pytest.raises(ValueError, match="captions: 1 given for 2 images"):
        grid(flat(0, 0), captions=["one"])


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_caption_adds_a_strip_above(mode):
    picture = Image.new(mode, (200, 50), "black")
    found = caption(picture, "epoch 12")
    assert found.mode == mode
    assert found.width == 200
    strip = found.height - 50
    assert found.crop((0, strip, 200, found.height)).tobytes() == picture.tobytes()
    text = np.asarray(found.crop((0, 0, 200, strip)).convert("L"))
    assert text.min() < 60
    assert text.max() == 255
    assert found.tobytes() != caption(picture, "epoch 13").tobytes()


@pytest.mark.parametrize("width", [1, 8, 60, 500, 3000])
def test_a_caption_changes_no_size(width):
    picture = Image.new("L", (width, 10))
    sizes = {caption(picture, text).size for text in ("", "x", "a long text " * 99, "two\nlines", "日本 é → ×")}
    assert len(sizes) == 1
    assert sizes.pop()[0] == width


def test_text_that_the_font_lacks_is_spelled():
    picture = Image.new("L", (300, 10))
    assert caption(picture, "Fréchet × 2 → 3\n4").tobytes() == caption(picture, "Frechet x 2 -> 3 4").tobytes()
    assert caption(picture, "日").tobytes() == caption(picture, "?").tobytes()


# save


@pytest.mark.parametrize(
    ("ending", "form"),
    [(".png", "PNG"), (".PNG", "PNG"), (".jpg", "JPEG"), (".jpeg", "JPEG"), (".webp", "WEBP")],
)
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_save(ending, form, mode, tmp_path):
    path = tmp_path / "new" / "folder" / f"image{ending}"
    picture = grid(torch.rand(4, 1 if mode == "L" else 3, 8, 8) * 2 - 1)
    save(picture, path)
    with Image.open(path) as found:
        assert (found.format, found.size) == (form, picture.size)
        assert form == "WEBP" or found.mode == mode
        if form != "JPEG":
            assert found.convert(mode).tobytes() == picture.tobytes()
    assert listing(path.parent) == [path.name]


@pytest.mark.skipif(os.name == "nt", reason="Windows knows no umask")
def test_a_file_has_the_usual_permissions(tmp_path):
    (tmp_path / "usual").touch()
    save(Image.new("L", (1, 1)), tmp_path / "a.png")
    assert (tmp_path / "a.png").stat().st_mode == (tmp_path / "usual").stat().st_mode


@pytest.mark.parametrize("name", ["image.bmpp", "image"])
def test_unknown_ending(name, tmp_path):
    with pytest.raises(GantoolError, match=r"unknown ending '.*'; end it in \.png or \.jpg or \.jpeg or \.webp$"):
        save(Image.new("L", (1, 1)), tmp_path / name)
    with pytest.raises(GantoolError, match=r"unknown ending '.*'; end it in \.gif or \.webp or \.mp4$"):
        animate(frames(2), tmp_path / name)
    assert listing(tmp_path) == []


def failing(problem: Exception):
    def write(image, path, *args, **options):
        path.write_bytes(b"half a pict")
        raise problem

    return write


@pytest.mark.parametrize(
    ("problem", "kind", "text"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), ResourceError, "the disk is full"),
        (OSError(errno.EIO, "Input/output error"), RunError, "Input/output error"),
        (OSError("encoder error -2"), RunError, "encoder error -2"),
        (KeyError("a bug"), KeyError, "a bug"),
        (KeyboardInterrupt("stop"), KeyboardInterrupt, "stop"),
    ],
)
@pytest.mark.parametrize("name", ["still.png", "moving.gif", "moving.webp"])
def test_a_failing_write_leaves_the_old_file_and_nothing_else(problem, kind, text, name, tmp_path, monkeypatch):
    path = tmp_path / name
    path.write_bytes(b"the old file")
    monkeypatch.setattr(Image.Image, "save", failing(problem))
    with pytest.raises(kind, match=text):
        save(frames(1)[0], path) if name == "still.png" else animate(frames(2), path)
    assert path.read_bytes() == b"the old file"
    assert listing(tmp_path) == [name]


@pytest.mark.parametrize("name", ["a.png", "a.webp"])
def test_a_folder_that_is_a_file(name, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match=r"cannot be written \(.*\); choose another"):
        save(Image.new("L", (1, 1)), tmp_path / "file" / name)


def test_a_path_that_is_a_folder(tmp_path):
    (tmp_path / "a.png").mkdir()
    with pytest.raises(RunError, match="cannot be written"):
        save(Image.new("L", (1, 1)), tmp_path / "a.png")
    assert listing(tmp_path) == ["a.png"]


def test_too_large_for_the_format(tmp_path):
    with pytest.raises(RunError, match="another place or format"):
        save(Image.new("L", (16400, 1)), tmp_path / "a.webp")
    assert listing(tmp_path) == []


# save_each


@pytest.mark.parametrize("channels", [1, 3])
def test_save_each(channels, tmp_path):
    images = torch.rand(3, channels, 4, 5) * 2 - 1
    paths = save_each(images, tmp_path / "out", ["a", "b.2", "cat/c"])
    assert paths == [tmp_path / "out" / name for name in ("a.png", "b.2.png", "cat/c.png")]
    for path, wanted in zip(paths, to_pixels(images), strict=True):
        with Image.open(path) as found:
            assert found.mode == ("L" if channels == 1 else "RGB")
            assert np.array_equal(np.asarray(found).reshape(4, 5, channels), wanted)


@pytest.mark.parametrize("names", [["a"], ["a", "a"]])
def test_save_each_wants_a_name_for_each(names, tmp_path):
    with pytest.raises(ValueError, match="names: "):
        save_each(flat(0, 1), tmp_path, names)


# animate


@pytest.mark.parametrize("ending", [".gif", ".webp"])
@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize(("loop", "times"), [(True, 0), (False, 1)])
def test_gif_and_webp(ending, mode, loop, times, tmp_path):
    path = tmp_path / f"new/a{ending}"
    pictures = frames(5, mode=mode, size=(31, 17))
    animate(iter(pictures), path, seconds_per_frame=0.13, loop=loop)
    with Image.open(path) as found:
        assert (found.n_frames, found.size) == (5, (31, 17))
        # A GIF that plays once says so by saying nothing.
        assert found.info.get("loop", 1) == times
        for index, picture in enumerate(pictures):
            found.seek(index)
            found.load()
            assert found.info["duration"] == 130
            assert np.abs(np.asarray(found.convert(mode), int) - np.asarray(picture, int)).max() <= 1
    assert listing(path.parent) == [path.name]


def test_a_gif_of_grey_frames_is_exact(tmp_path):
    pictures = [grid(torch.rand(4, 1, 8, 8) * 2 - 1) for _ in range(3)]
    animate(pictures, tmp_path / "a.gif")
    with Image.open(tmp_path / "a.gif") as found:
        for index, picture in enumerate(pictures):
            found.seek(index)
            assert found.convert("L").tobytes() == picture.tobytes()


def test_a_gif_of_colour_frames_is_close(tmp_path):
    ramp = torch.linspace(-1, 1, 32)
    pictures = [
        grid(torch.stack([ramp.expand(32, 32), ramp.view(32, 1).expand(32, 32), torch.full((32, 32), blue)])[None])
        for blue in (-1.0, 1.0)
    ]
    animate(pictures, tmp_path / "a.gif")
    with Image.open(tmp_path / "a.gif") as found:
        for index, picture in enumerate(pictures):
            found.seek(index)
            difference = np.asarray(found.convert("RGB"), int) - np.asarray(picture, int)
            # Dithering moves single pixels, but not the colour of an area.
            assert np.abs(difference.mean((0, 1))).max() < 2
            assert np.abs(difference).mean() < 12


def test_a_gif_frame_takes_two_hundredths_at_least(tmp_path):
    animate(frames(2), tmp_path / "a.gif", seconds_per_frame=0.001)
    with Image.open(tmp_path / "a.gif") as found:
        assert found.info["duration"] == 20


def film(path) -> tuple[tuple[int, int], float, np.ndarray]:
    """Decode an MP4 to its size, frames per second and frames, [N, H, W, 3].

    `imageio_ffmpeg.read_frames` would leave its pipes open, which is a warning and so an error here.
    """
    import imageio_ffmpeg

    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-i", str(path), "-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    done = subprocess.run(command, capture_output=True, check=True)
    about = next(line for line in done.stderr.decode().splitlines() if "Video: h264" in line)
    width, height, rate = re.search(r" (\d+)x(\d+)[ ,].* ([\d.]+) fps", about).groups()
    size = (int(width), int(height))
    return size, float(rate), np.frombuffer(done.stdout, np.uint8).reshape(-1, size[1], size[0], 3)


@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize("size", [(40, 30), (41, 31), (1, 1)])
def test_mp4(mode, size, tmp_path):
    path = tmp_path / "a.mp4"
    pictures = frames(7, mode=mode, size=size)
    animate(iter(pictures), path, seconds_per_frame=0.25)
    found_size, rate, found = film(path)
    assert found_size == (size[0] + size[0] % 2, size[1] + size[1] % 2)
    assert rate == 4
    assert len(found) == 7
    for seen, picture in zip(found, pictures, strict=True):
        # An odd side is continued by its last pixels, so the frame is of one colour to its edges.
        assert np.abs(seen.astype(int) - picture.convert("RGB").getpixel((0, 0))).max() <= 5  # 5 with ffmpeg 7
    assert path.read_bytes().index(b"moov") < path.read_bytes().index(b"mdat")
    assert listing(tmp_path) == ["a.mp4"]


def test_mp4_keeps_colours(tmp_path):
    animate([Image.new("RGB", (1280, 720), (200, 100, 50))], tmp_path / "a.mp4")
    *_, found = film(tmp_path / "a.mp4")
    assert np.abs(found[0].astype(int) - (200, 100, 50)).max() <= 4


def test_ffmpeg_that_fails_is_reported(tmp_path, monkeypatch):
    import imageio_ffmpeg

    path = tmp_path / "a.mp4"
    path.write_bytes(b"the old file")
    # Python understands none of ffmpeg's options, and says so.
    monkeypatch.setattr(imageio_ffmpeg, "get_ffmpeg_exe", lambda: sys.executable)
    with pytest.raises(RunError, match=r"a\.mp4: cannot be written \(.+\)"):
        animate(frames(50, size=(400, 300)), path)
    assert path.read_bytes() == b"the old file"
    assert listing(tmp_path) == ["a.mp4"]


def test_without_ffmpeg(tmp_path, monkeypatch):
    import imageio_ffmpeg

    def missing():
        raise RuntimeError("no ffmpeg exe could be found")

    monkeypatch.setattr(imageio_ffmpeg, "get_ffmpeg_exe", missing)
    with pytest.raises(ResourceError, match=r"no ffmpeg.*write a \.gif or \.webp"):
        animate(frames(2), tmp_path / "a.mp4")
    assert listing(tmp_path) == []


@pytest.mark.parametrize("ending", [".gif", ".webp", ".mp4"])
def test_frames_that_cannot_be_animated(ending, tmp_path):
    path = tmp_path / f"a{ending}"
    with pytest.raises(GantoolError, match="no frames to animate; give at least one"):
        animate([], path)
    with pytest.raises(GantoolError, match="frame 3 is 9x9 L, the first 40x30 L; make all frames alike"):
        animate([*frames(2), Image.new("L", (9, 9))], path)
    with pytest.raises(GantoolError, match="frame 2 is 40x30 RGB, the first 40x30 L"):
        animate([*frames(1), *frames(1, mode="RGB")], path)
    assert listing(tmp_path) == []


@pytest.mark.parametrize("ending", [".gif", ".webp", ".mp4"])
def test_what_the_maker_of_frames_raises_is_its_own(ending, tmp_path):
    def broken():
        yield from frames(2)
        raise FileNotFoundError(errno.ENOENT, "No such file", "frame 3")

    path = tmp_path / f"a{ending}"
    path.write_bytes(b"the old file")
    with pytest.raises(FileNotFoundError):
        animate(broken(), path)
    assert path.read_bytes() == b"the old file"
    assert listing(tmp_path) == [path.name]


@pytest.mark.parametrize("ending", [".gif", ".webp", ".mp4"])
def test_a_damaged_frame_is_neither_skipped_nor_a_failure_to_write(ending, tmp_path):
    Image.effect_noise((40, 30), 50).save(tmp_path / "frame.bmp")
    os.truncate(tmp_path / "frame.bmp", 1500)
    with (
        Image.open(tmp_path / "frame.bmp") as damaged,
        pytest.raises(OSError, match="image file is truncated"),
    ):
        animate([*frames(2), damaged], tmp_path / f"a{ending}")
    assert listing(tmp_path) == ["frame.bmp"]


@pytest.mark.parametrize("ending", [".gif", ".webp", ".mp4"])
def test_one_frame(ending, tmp_path):
    animate(frames(1), tmp_path / f"a{ending}")
    assert (tmp_path / f"a{ending}").stat().st_size > 0
