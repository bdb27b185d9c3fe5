"""From tensors to what a person looks at: grids, contact sheets and single images.

Grey stays grey (mode L) all the way. A file appears
whole or not at all: it is written beside its place and then moved there. Missing folders are made.
"""

from __future__ import annotations

import errno
import functools
import math
import secrets
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from gantool.errors import GantoolError, ResourceError, RunError

STILL: dict[str, dict[str, Any]] = {
    ".png": {"format": "PNG", "compress_level": 1},
    ".jpg": {"format": "JPEG", "quality": 95, "subsampling": 0},
    ".jpeg": {"format": "JPEG", "quality": 95, "subsampling": 0},
    # Lossless: enlarged pixels keep their edges. Method 0 costs a quarter more bytes and a sixth of the time.
    ".webp": {"format": "WEBP", "lossless": True, "method": 0},
}
# The built-in font knows ASCII and a few signs; the rest is spelled, or loses its accents, or becomes "?".
_SPELLED = str.maketrans({"×": "x", "–": "-", "—": "-", "−": "-", "→": "->", "≤": "<=", "≥": ">=", "ß": "ss"})


def to_float(images: Tensor) -> Tensor:
    """Scale uint8 images to -1 to 1."""
    return images.float().div_(127.5).sub_(1)


def to_uint8(images: Tensor) -> Tensor:
    """Round images of -1 to 1 to the 8 bits that are written; what is not a number becomes black."""
    return ((images + 1) * 127.5 + 0.5).floor().nan_to_num(0).clamp(0, 255).to(torch.uint8).cpu()


def to_pixels(images: Tensor) -> npt.NDArray[np.uint8]:
    """Turn a model's numbers into pixels.

    Args:
        images: [N, C, H, W], float on any device; -1 is black and 1 is white.

    Returns:
        [N, H, W, C], uint8: (x + 1) * 127.5, halves rounded up; beyond the ends clamped, and NaN is 0.
    """
    values = images.detach().float().add(1).mul_(127.5).add_(0.5).floor_().clamp_(0, 255).nan_to_num_(0)
    pixels: npt.NDArray[np.uint8] = values.byte().permute(0, 2, 3, 1).contiguous().cpu().numpy()
    return pixels


def grid(
    images: Tensor,
    *,
    columns: int | None = None,
    captions: Sequence[str] | None = None,
    padding: int = 2,
    scale: int | None = None,
) -> Image.Image:
    """Lay images out in rows, on white.

    Args:
        images: [N, C, H, W], float -1 to 1, N at least 1; C is 1 (gives mode L) or 3 (RGB).
        columns: no more than N are drawn; None comes as near to a square as can be.
        captions: a line for each image, drawn under it; cells of small images widen for it.
        padding: white pixels around every tile.
        scale: how many pixels each pixel becomes in both directions; None enlarges small images to 56 pixels
            or a little more, as long as the grid stays within 4096.

    Returns:
        padding + columns * (W * scale + padding) pixels wide, the height likewise, plus room for captions.

    Raises:
        ValueError: no images, other channels than 1 or 3, or another number of captions than of images.
    """
    count, channels, height, width = images.shape
    if not count or channels not in (1, 3):
        raise ValueError(f"images: shape {tuple(images.shape)}; a grid needs 1 or more, of 1 or 3 channels")
    if captions is not None and len(captions) != count:
        raise ValueError(f"captions: {len(captions)} given for {count} images")
    columns = min(columns or math.ceil(math.sqrt(count)), count)
    rows = math.ceil(count / columns)
    if scale is None:
        fitting = min(4096 // (rows * height), 4096 // (columns * width))
        scale = max(1, min(math.ceil(56 / max(height, width)), fitting))
    high, wide = height * scale, width * scale
    strips = _strips(captions, "L" if channels == 1 else "RGB", wide) if captions else []
    row = high + padding + (strips[0].height if strips else 0)
    column = padding + (strips[0].width if strips else wide)
    inset = (column - padding - wide) // 2

    pixels = np.full((rows * columns, height, width, channels), 255, np.uint8)
    pixels[:count] = to_pixels(images)
    sheet = np.full((padding + rows * row, padding + columns * column, channels), 255, np.uint8)
    # Views of the sheet, whose axes split without a copy: one assignment enlarges and places every tile.
    cells = sheet[padding:, padding:].reshape(rows, row, columns, column, channels)
    tiles = cells[:, :high, :, inset : inset + wide].reshape(rows, height, scale, columns, width, scale, channels)
    tiles[...] = pixels.reshape(rows, columns, height, 1, width, 1, channels).transpose(0, 2, 3, 1, 4, 5, 6)
    image = Image.fromarray(sheet[..., 0] if channels == 1 else sheet)
    for index, strip in enumerate(strips):
        down, across = divmod(index, columns)
        image.paste(strip, (padding + across * column, padding + down * row + high))
    return image


def caption(image: Image.Image, text: str) -> Image.Image:
    """Put one line of text on a white strip above an image of mode L or RGB.

    Text that is too long becomes smaller, then shorter. The size of what is returned depends on the image's
    alone, so that the frames of an animation stay alike.
    """
    strip = _strip(text, image.mode, image.width, _text_size(image.width))
    both = Image.new(image.mode, (image.width, strip.height + image.height), "white")
    both.paste(strip, (0, 0))
    both.paste(image, (0, strip.height))
    return both


@functools.lru_cache(maxsize=64)
def font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Return the built-in font at a height in pixels."""
    return ImageFont.load_default(size=size)


def _text_size(width: int) -> int:
    return min(max(12, width // 20), 24)


def _strips(captions: Sequence[str], mode: str, width: int) -> list[Image.Image]:
    """Draw captions for tiles of `width` pixels; all get the width that the longest needs, up to 160."""
    size = _text_size(width)
    needed = math.ceil(max(font(size).getlength(drawable(text)) for text in captions)) + 4
    return [_strip(text, mode, max(width, min(needed, 160)), size, centred=True) for text in captions]


def drawable(text: str) -> str:
    """Spell `text` on one line, in characters that the built-in font can draw."""
    plain = "".join(
        character if character in "·…°±" else unicodedata.normalize("NFKD", character)[0]
        for character in " ".join(text.translate(_SPELLED).split())
    )
    return "".join(character if character.isascii() or character in "·…°±" else "?" for character in plain)


def _strip(text: str, mode: str, width: int, size: int, *, centred: bool = False) -> Image.Image:
    strip = Image.new(mode, (width, size * 3 // 2), "white")
    text = drawable(text)[:width]  # no more can fit, since no character is narrower than a pixel
    while size > 9 and font(size).getlength(text) > width - 4:
        size -= 1
    while len(text) > 1 and font(size).getlength(text) > width - 4:
        text = text.removesuffix("…")[:-1].rstrip() + "…"
    place, anchor = ((width / 2, strip.height / 2), "mm") if centred else ((2, strip.height / 2), "lm")
    ImageDraw.Draw(strip).text(place, text, fill="black", font=font(size), anchor=anchor)
    return strip


def save(image: Image.Image, path: Path) -> None:
    """Write one image of mode L or RGB as .png, .jpg, .jpeg or .webp, by the ending of `path`.

    Raises:
        GantoolError: another ending.
        ResourceError: the disk is full.
        RunError: `path` cannot be written for another reason.
    """
    options = STILL[ending(path, STILL)]
    with replacing(path) as temporary, explained(path):
        image.save(temporary, **options)


def save_each(images: Tensor, folder: Path, names: Sequence[str]) -> list[Path]:
    """Write every image, [N, C, H, W] of -1 to 1, as `folder`/`name`.png, and return the N paths.

    Raises:
        ValueError: another number of names than of images, or a name twice.
        ResourceError, RunError: as `save`.
    """
    if len(names) != len(images) or len(set(names)) != len(names):
        raise ValueError(f"names: {len(set(names))} different ones for {len(images)} images; give one for each")
    paths = [folder / f"{name}.png" for name in names]
    for path, pixels in zip(paths, to_pixels(images), strict=True):
        save(Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels), path)
    return paths


def ending(path: Path, known: Iterable[str]) -> str:
    """Return the ending of `path` in lower case; GantoolError where it is not a known one."""
    if path.suffix.lower() not in known:
        raise GantoolError(f"{path}: unknown ending {path.suffix!r}; end it in {' or '.join(known)}")
    return path.suffix.lower()


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield the path of a temporary sibling, which takes the place of `path` if all goes well, or goes."""
    temporary = path.with_name(f".{secrets.token_hex(8)}{path.suffix}")
    try:
        with explained(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary.touch(exist_ok=False)
        yield temporary
        with explained(path):
            temporary.replace(path)
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn what an encoder or the system raises into ResourceError or RunError for `path`."""
    try:
        yield
    except (OSError, ValueError) as problem:  # ValueError is what some encoders say of too large an image
        said = getattr(problem, "strerror", None) or str(problem)
        if getattr(problem, "errno", None) in (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)):
            raise ResourceError(f"{path}: the disk is full ({said}); free some space there") from problem
        raise RunError(f"{path}: cannot be written ({said}); choose another place or format") from problem
