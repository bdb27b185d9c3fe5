"""Frames to an animation: GIF, WebP and MP4.

Grey frames stay grey, which makes a GIF five times as fast as colour would.
"""

from __future__ import annotations

import errno
import itertools
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import suppress
from fractions import Fraction
from pathlib import Path

import numpy as np
from PIL import Image

from gantool.errors import ResourceError
from gantool.files import atomic_write, disk
from gantool.images import STILL, ending, write_image

_MOVING = (".gif", ".webp", ".mp4")
# The colour space is named because players otherwise guess it from the size, and show other colours.
_COLOURS = "-vf scale=out_color_matrix=bt709 -colorspace bt709"
_FFMPEG = f"-f rawvideo -i - {_COLOURS} -c:v libx264 -crf 15 -pix_fmt yuv420p -movflags +faststart -f mp4"


def animate(frames: Iterable[Image.Image], path: Path, *, seconds_per_frame: float = 0.2) -> None:
    """Write images of one size and one mode (L or RGB) as .gif, .webp or .mp4, by the ending of `path`.

    Args:
        frames: in order; an MP4 takes them one by one, the others hold all in memory.
        path: of the animation. A GIF has 256 colours in each frame, a WEBP is exact, an MP4 nearly so; an odd
            side of an MP4 becomes one pixel longer.
        seconds_per_frame: above 0; a GIF counts in hundredths and takes at least 0.02.

    Raises:
        GantoolError: another ending.
        DiskError, RunError: as `images.write_image`.
    """
    form = ending(path, _MOVING)
    if form == ".mp4":
        with tempfile.TemporaryDirectory() as folder:  # an error of the frames is none of the file
            film = Path(folder) / "film.mp4"
            _film(iter(frames), film, path, Fraction(1 / seconds_per_frame).limit_denominator(1000))
            with atomic_write(path, sync=False) as aside:
                path.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(film, aside)
        return
    options = dict(STILL[".webp"], duration=max(1, round(seconds_per_frame * 1000)), loop=0)
    if form == ".gif":
        options = {"format": "GIF", "duration": 10 * max(2, round(seconds_per_frame * 100)), "loop": 0}
        frames = map(_indexed, frames)
    # All frames are made before the file is opened, so an error then is one of writing.
    first, *others = frames
    write_image(first, path, save_all=True, append_images=others, **options)


def _indexed(frame: Image.Image) -> Image.Image:
    """Reduce a colour frame to its own 256 colours. The octree is fast, and dithering hides its steps."""
    if frame.mode == "L":
        return frame
    palette = frame.quantize(256, method=Image.Quantize.FASTOCTREE)
    return frame.quantize(palette=palette, dither=Image.Dither.FLOYDSTEINBERG)


def _film(frames: Iterator[Image.Image], film: Path, path: Path, rate: Fraction) -> None:
    """Pipe frames through ffmpeg, run here because `imageio_ffmpeg.write_frames` hides how it ended."""
    import imageio_ffmpeg  # only an MP4 needs it

    try:
        program = imageio_ffmpeg.get_ffmpeg_exe()
    except RuntimeError as problem:
        raise ResourceError(f"{path}: no ffmpeg for an MP4 ({problem}); write a .gif or .webp") from problem
    first = next(frames)
    odd = ((0, first.height % 2), (0, first.width % 2), (0, 0))[: 2 if first.mode == "L" else 3]
    size = f"{first.width + first.width % 2}x{first.height + first.height % 2}"
    form = ["-pix_fmt", "gray" if first.mode == "L" else "rgb24", "-s", size, "-r", str(rate)]
    command = [program, "-y", "-v", "error", *form, *_FFMPEG.split(), str(film)]
    with tempfile.TemporaryFile() as log:
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=log, stderr=log) as ffmpeg:
            assert ffmpeg.stdin is not None
            for frame in itertools.chain([first], frames):
                content = np.pad(np.asarray(frame), odd, mode="edge").tobytes()
                with suppress(OSError):  # ffmpeg that stops early says why in its log
                    ffmpeg.stdin.write(content)
            with suppress(OSError):
                ffmpeg.stdin.close()
        if ffmpeg.returncode:
            log.seek(0)
            said = log.read().decode(errors="replace").strip().splitlines() or [f"code {ffmpeg.returncode}"]
            full = any("No space left" in line for line in said)
            raise disk(path, OSError(errno.ENOSPC if full else errno.EIO, said[-1]))
