"""Animations as GIF, WebP and MP4."""

from __future__ import annotations

import errno
import re
import subprocess
import sys

import numpy as np
import pytest
import torch
from gantool.errors import DiskError, GantoolError, ResourceError
from gantool.images import grid
from gantool.inference.animation import animate
from PIL import Image

from processes import child, posix


def frames(count, *, mode="L", size=(40, 30)):
    """Images that all differ, and widely."""
    return [Image.new("L", size, 255 * index // max(1, count - 1)).convert(mode) for index in range(count)]


def listing(folder):
    return sorted(path.name for path in folder.iterdir())


def film(path):
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


@pytest.mark.parametrize("ending", [".gif", ".webp"])
@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize("count", [1, 5])
def test_a_gif_and_a_webp_hold_every_frame_for_its_time_and_loop(ending, mode, count, tmp_path):
    path, images = tmp_path / f"new/a{ending}", frames(count, mode=mode, size=(31, 17))
    animate(iter(images), path, seconds_per_frame=0.13)
    with Image.open(path) as found:
        assert (found.n_frames, found.size) == (count, (31, 17))
        assert count == 1 or found.info["loop"] == 0
        for index, image in enumerate(images):
            found.seek(index)
            found.load()
            assert count == 1 or found.info["duration"] == 130
            assert np.abs(np.asarray(found.convert(mode), int) - np.asarray(image, int)).max() <= 1
    assert listing(path.parent) == [path.name]


def test_a_gif_of_grey_frames_is_exact_and_its_frames_take_two_hundredths_at_least(tmp_path):
    images = [grid(torch.rand(4, 1, 8, 8) * 2 - 1) for _ in range(3)]
    animate(images, tmp_path / "a.gif", seconds_per_frame=0.001)
    with Image.open(tmp_path / "a.gif") as found:
        assert found.info["duration"] == 20
        for index, image in enumerate(images):
            found.seek(index)
            assert found.convert("L").tobytes() == image.tobytes()


def test_a_gif_of_colour_frames_is_close(tmp_path):
    ramp = torch.linspace(-1, 1, 32)
    images = [
        grid(torch.stack([ramp.expand(32, 32), ramp.view(32, 1).expand(32, 32), torch.full((32, 32), blue)])[None])
        for blue in (-1.0, 1.0)
    ]
    animate(images, tmp_path / "a.gif")
    with Image.open(tmp_path / "a.gif") as found:
        for index, image in enumerate(images):
            found.seek(index)
            difference = np.asarray(found.convert("RGB"), int) - np.asarray(image, int)
            # Dithering moves single pixels, but not the colour of an area.
            assert np.abs(difference.mean((0, 1))).max() < 2
            assert np.abs(difference).mean() < 12


@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize(("size", "count"), [((40, 30), 7), ((41, 31), 7), ((1, 1), 1)])
def test_an_mp4_holds_every_frame_with_even_sides(mode, size, count, tmp_path):
    path, images = tmp_path / "a.mp4", frames(count, mode=mode, size=size)
    animate(iter(images), path, seconds_per_frame=0.25)
    found_size, rate, found = film(path)
    assert (found_size, rate, len(found)) == ((size[0] + size[0] % 2, size[1] + size[1] % 2), 4, count)
    for seen, image in zip(found, images, strict=True):
        # An odd side is continued by its last pixels, so the frame is of one colour to its edges.
        assert np.abs(seen.astype(int) - image.convert("RGB").getpixel((0, 0))).max() <= 5  # 5 with ffmpeg 7
    assert path.read_bytes().index(b"moov") < path.read_bytes().index(b"mdat")
    assert listing(tmp_path) == ["a.mp4"]


def test_an_mp4_keeps_colours(tmp_path):
    animate([Image.new("RGB", (1280, 720), (200, 100, 50))], tmp_path / "a.mp4")
    *_, found = film(tmp_path / "a.mp4")
    assert np.abs(found[0].astype(int) - (200, 100, 50)).max() <= 4


def test_an_ffmpeg_that_fails_or_is_missing_is_reported(tmp_path, monkeypatch):
    import imageio_ffmpeg

    def missing():
        raise RuntimeError("no ffmpeg exe could be found")

    path = tmp_path / "a.mp4"
    path.write_bytes(b"the old file")
    monkeypatch.setattr(imageio_ffmpeg, "get_ffmpeg_exe", lambda: sys.executable)  # it knows none of these options
    with pytest.raises(DiskError, match=r"a\.mp4: cannot be written \(.+\)"):
        animate(frames(50, size=(400, 300)), path)
    monkeypatch.setattr(imageio_ffmpeg, "get_ffmpeg_exe", missing)
    with pytest.raises(ResourceError, match=r"no ffmpeg.*write a \.gif or \.webp"):
        animate(frames(2), path)
    assert path.read_bytes() == b"the old file"
    assert listing(tmp_path) == ["a.mp4"]


@pytest.mark.parametrize("ending", [".gif", ".webp", ".mp4"])
def test_an_error_of_a_frame_is_not_reported_as_one_of_the_file(ending, tmp_path):
    def broken():
        yield from frames(2)
        raise FileNotFoundError(errno.ENOENT, "No such file", "frame 3")

    path = tmp_path / f"a{ending}"
    path.write_bytes(b"the old file")
    with pytest.raises(FileNotFoundError):
        animate(broken(), path)
    assert path.read_bytes() == b"the old file"
    assert listing(tmp_path) == [path.name]


@pytest.mark.parametrize("name", ["a.bmpp", "a"])
def test_another_ending_is_refused(name, tmp_path):
    with pytest.raises(GantoolError, match=r"unknown ending '.*'; end it in \.gif or \.webp or \.mp4$"):
        animate(frames(2), tmp_path / name)
    assert listing(tmp_path) == []


@posix
def test_a_film_that_is_larger_than_the_system_allows_is_a_full_disk(tmp_path):
    script = """
        import resource, sys
        from pathlib import Path
        from gantool.errors import DiskError
        from gantool.inference.animation import animate
        from PIL import Image
        import numpy as np

        noise = np.random.default_rng(0)
        frames = [Image.fromarray(noise.integers(0, 255, (64, 64), dtype=np.uint8)) for _ in range(9)]
        resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))
        for name in ("a.gif", "a.webp", "a.mp4"):
            try:
                animate(frames, Path(sys.argv[1], name))
            except DiskError as error:
                print(name, error.exit_code, "the disk is full" in str(error))
    """
    with child(script, tmp_path) as process:
        assert process.communicate()[0] == "".join(f"{name} 7 True\n" for name in ("a.gif", "a.webp", "a.mp4"))
    assert listing(tmp_path) == []
