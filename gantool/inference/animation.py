"""Frames to an animation: GIF, WebP and MP4.

Grey frames stay grey, which makes a GIF five times as fast as colour would.
"""

from __future__ import annotations

import errno
import itertools
import subprocess
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import suppress
from fractions import Fraction
from pathlib import Path

import numpy as np
from PIL import Image

from gantool.errors import ResourceError
from gantool.files import disk, disk_errors, output
from gantool.images import STILL, encoded, ending

_MOVING = (".gif", ".webp", ".mp4")
# The colour space is named because players otherwise guess it from the size, and show other colours.
_COLOURS = "-vf scale=out_color_matrix=bt709 -colorspace bt709"
_FULL = ("No space left", "File too large", "code -25")  # in what is known of a failure; 25 is SIGXFSZ
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
        DiskError, RunError: as `images.save`.
    """
    form = ending(path, _MOVING)
    if form == ".mp4":
        output(path, _film(iter(frames), path, Fraction(1 / seconds_per_frame).limit_denominator(1000)))
        return
    options = dict(STILL[".webp"], duration=max(1, round(seconds_per_frame * 1000)), loop=0)
    if form == ".gif":
        options = {"format": "GIF", "duration": 10 * max(2, round(seconds_per_frame * 100)), "loop": 0}
        frames = map(_indexed, frames)
    first, *others = frames
    output(path, encoded(first, path, save_all=True, append_images=others, **options))


def _indexed(frame: Image.Image) -> Image.Image:
    """Reduce a colour frame to its own 256 colours. The octree is fast, and dithering hides its steps."""
    if frame.mode == "L":
        return frame
    palette = frame.quantize(256, method=Image.Quantize.FASTOCTREE)
    return frame.quantize(palette=palette, dither=Image.Dither.FLOYDSTEINBERG)


def _film(frames: Iterator[Image.Image], path: Path, rate: Fraction) -> bytes:
    """Pipe frames through ffmpeg, run here because `imageio_ffmpeg.write_frames` hides how it ended.

    It writes into the system's folder for temporary files, because it has to move back in its file.
    """
    import imageio_ffmpeg  # only an MP4 needs it

    try:
        program = imageio_ffmpeg.get_ffmpeg_exe()
    except RuntimeError as problem:
        raise ResourceError(f"{path}: no ffmpeg for an MP4 ({problem}); write a .gif or .webp") from problem
    first = next(frames)
    frames = itertools.chain([first], frames)
    odd = ((0, first.height % 2), (0, first.width % 2), (0, 0))[: 2 if first.mode == "L" else 3]
    size = f"{first.width + first.width % 2}x{first.height + first.height % 2}"
    form = ["-pix_fmt", "gray" if first.mode == "L" else "rgb24", "-s", size, "-r", str(rate)]
    with disk_errors(Path(tempfile.gettempdir())):
        temporary = tempfile.TemporaryDirectory()
    with temporary as folder:
        film = Path(folder) / "film.mp4"
        said = _run([program, "-y", "-v", "error", *form, *_FFMPEG.split(), str(film)], frames, odd)
        if any(words in said for words in _FULL):
            raise disk(Path(tempfile.gettempdir()), OSError(errno.ENOSPC, said))
        if said:
            raise disk(path, OSError(errno.EIO, said))
        return film.read_bytes()


def _run(command: list[str], frames: Iterable[Image.Image], odd: tuple[tuple[int, int], ...]) -> str:
    """Run ffmpeg on frames, and return why it failed, or nothing."""
    with disk_errors(Path(tempfile.gettempdir())):
        log = tempfile.TemporaryFile()  # noqa: SIM115  only making it may fail
    with log:
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=log, stderr=log) as ffmpeg:
            assert ffmpeg.stdin is not None
            for frame in frames:
                content = np.pad(np.asarray(frame), odd, mode="edge").tobytes()
                with suppress(OSError):  # ffmpeg that stops early says why in its log
                    ffmpeg.stdin.write(content)
            with suppress(OSError):
                ffmpeg.stdin.close()
        if not ffmpeg.returncode:
            return ""
        log.seek(0)
        said = log.read().decode(errors="replace").strip().splitlines() or [f"code {ffmpeg.returncode}"]
        return next((line for line in said if any(words in line for words in _FULL)), said[-1])
