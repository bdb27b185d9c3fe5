"""From tensors to images that a person looks at: grids, captions, and files.

Grey stays grey (mode L). Files are written atomically.
"""

from __future__ import annotations

import functools
import io
import math
import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from gantool.errors import DiskError, GantoolError, RunError
from gantool.files import output, undo, write

STILL: dict[str, dict[str, Any]] = {
    ".png": {"format": "PNG", "compress_level": 1},
    ".jpg": {"format": "JPEG", "quality": 95, "subsampling": 0},
    ".jpeg": {"format": "JPEG", "quality": 95, "subsampling": 0},
    # Lossless: enlarged pixels keep their edges. Method 0 costs a quarter more bytes and a sixth of the time.
    ".webp": {"format": "WEBP", "lossless": True, "method": 0},
}
# The built-in font draws ASCII and these signs. Other text is spelled, or loses its accents, or becomes "?".
_SIGNS = "·…°±"
_SPELLED = str.maketrans({"×": "x", "–": "-", "—": "-", "−": "-", "→": "->", "≤": "<=", "≥": ">=", "ß": "ss"})


def to_float(images: Tensor) -> Tensor:
    """Scale uint8 images to -1 to 1."""
    return images.float().div_(127.5).sub_(1)


def to_uint8(images: Tensor) -> Tensor:
    """Round images to the 8 bits that are written, on the CPU.

    -1 is black and 1 is white. Halves are rounded up, values beyond the ends are clamped, and NaN becomes black.
    """
    scaled = images.detach().add(1).mul_(127.5).add_(0.5).floor_()
    return scaled.clamp_(0, 255).nan_to_num_(0).to(torch.uint8).cpu()


def to_pixels(images: Tensor) -> npt.NDArray[np.uint8]:
    """Round images to 8 bits in single precision: [N, C, H, W], -1 to 1 -> [N, H, W, C]; see `to_uint8`."""
    pixels: npt.NDArray[np.uint8] = to_uint8(images.float()).permute(0, 2, 3, 1).contiguous().numpy()
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
        images: [N, C, H, W], -1 to 1, N at least 1, with 1 channel (the grid has mode L) or 3 (RGB).
        columns: at most N; None chooses a grid that is nearly square.
        captions: one line under each image; the cells of small images become wider for it.
        padding: white pixels around every tile.
        scale: how often each pixel is repeated in both directions; None enlarges small images to at least 56 pixels,
            as long as the grid stays within 4096.

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

    A long text is drawn smaller, then cut. The size of the result depends only on the image, so that the frames of an
    animation have the same size.
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


def drawable(text: str) -> str:
    """Spell `text` on one line, in characters that the built-in font can draw."""
    known = (
        sign if sign in _SIGNS else unicodedata.normalize("NFKD", sign)[0]
        for sign in " ".join(text.translate(_SPELLED).split())
    )
    return "".join(sign if sign.isascii() or sign in _SIGNS else "?" for sign in known)


def save(image: Image.Image, path: Path) -> list[Path]:
    """Write one image of mode L or RGB as .png, .jpg, .jpeg or .webp, by the ending of `path`; return what is new.

    Raises:
        GantoolError: the ending is another one.
        DiskError: the file cannot be written.
        RunError: the format cannot hold the image.
    """
    return output(path, encoded(image, path, **STILL[ending(path, STILL)]))


def save_sample(image: Image.Image, path: Path) -> None:
    """Write the .png of an epoch into a folder that exists.

    Raises:
        DiskError: the file cannot be written, for example because the run was deleted.
    """
    write(path, encoded(image, path, **STILL[".png"]), sync=False)


def save_each(images: Tensor, folder: Path, names: Sequence[str]) -> list[Path]:
    """Write every image, [N, C, H, W] of -1 to 1, as `folder`/`name`.png, or none; return the N paths.

    Raises:
        ValueError: another number of names than of images, or a name twice.
        DiskError: a file cannot be written; those before it are deleted again.
    """
    if len(names) != len(images) or len(set(names)) != len(names):
        raise ValueError(f"names: {len(set(names))} different ones for {len(images)} images; give one for each")
    paths = [folder / f"{name}.png" for name in names]
    made: list[Path] = []
    try:
        for path, pixels in zip(paths, to_pixels(images), strict=True):
            made += save(Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels), path)
    except DiskError:
        undo(made)
        raise
    return paths


def encoded(image: Image.Image, path: Path, **options: Any) -> bytes:
    """Return an image as the bytes of the file `path`, with options of Pillow's `save`.

    Pillow's encoders would report a full disk as a number of their own.

    Raises:
        RunError: the format cannot hold the image.
    """
    stream = io.BytesIO()
    try:
        image.save(stream, **options)
    except (ValueError, OSError) as error:
        raise RunError(f"{path}: cannot be written ({error}); choose another size or format") from error
    return stream.getvalue()


def ending(path: Path, known: Iterable[str]) -> str:
    """Return the ending of `path` in lower case; raise GantoolError if it is not a known one."""
    if path.suffix.lower() not in known:
        raise GantoolError(f"{path}: unknown ending {path.suffix!r}; end it in {' or '.join(known)}")
    return path.suffix.lower()


def _text_size(width: int) -> int:
    return min(max(12, width // 20), 24)


def _strips(captions: Sequence[str], mode: str, width: int) -> list[Image.Image]:
    """Draw captions for tiles of `width` pixels; all get the width that the longest needs, up to 160."""
    size = _text_size(width)
    needed = math.ceil(max(font(size).getlength(drawable(text)) for text in captions)) + 4
    return [_strip(text, mode, max(width, min(needed, 160)), size, centred=True) for text in captions]


def _strip(text: str, mode: str, width: int, size: int, *, centred: bool = False) -> Image.Image:
    strip = Image.new(mode, (width, size * 3 // 2), "white")
    text = drawable(text)[:width]  # more cannot fit, since no character is narrower than a pixel
    while size > 9 and font(size).getlength(text) > width - 4:
        size -= 1
    while len(text) > 1 and font(size).getlength(text) > width - 4:
        text = text.removesuffix("…")[:-1].rstrip() + "…"
    place, anchor = ((width / 2, strip.height / 2), "mm") if centred else ((2, strip.height / 2), "lm")
    ImageDraw.Draw(strip).text(place, text, fill="black", font=font(size), anchor=anchor)
    return strip
