"""Images of a classifier's answers: over a plane, under images, or counted.

All images of one classifier have the same size for any answers, since they are the frames of an animation.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from gantool.images import drawable, font, grid
from gantool.metrics.classification import Probabilities

INK, PALE, PAPER = (40, 44, 52), (120, 126, 136), (255, 255, 255)
TEXT, SMALL = 13, 11  # height of letters, in pixels
CLASSES = ((49, 104, 172), (217, 108, 38))  # colours of the first and of the second of two classes
SOFT = 0.45  # position of a certain answer between white and its class's colour
SIDE, PATCH = 280, 4  # pixels of a map on a side; of the squares that are computed as one
EDGE, HEAD = 20, 30  # pixels around a map, and above it for its legend
MARKER, FINER = 17, 8  # pixels of an example's marker, and the factor of its drawing before it is smoothed
LINE = 1.2  # half width in pixels of the line where the answer changes
TILE = 160  # pixels of a tile with its caption, on its longer side
WRONG = (1.0, 0.62, 0.56)  # colour around a wrongly classified image, -1 to 1
LIGHT = 0.9  # grey of a count of 0, -1 to 1


def decision_map(answer: Probabilities, inputs: Tensor, labels: Tensor, classes: Sequence[str]) -> Image.Image:
    """Draw the answers of a classifier of two classes over the plane of its two inputs, and the examples.

    The first input points to the right, the second one up. The plane is twice as wide and high as the examples' range.

    Returns:
        320 x 330 pixels, RGB: white for undecided answers, each class's colour for certain ones, and a line where the
        answer changes.
    """
    low, high = inputs.min(0).values, inputs.max(0).values
    span = (high - low).clamp_min(1e-6) * 2
    start = (low + high - span) / 2
    middles = (torch.arange(SIDE // PATCH) + 0.5) * PATCH / SIDE
    up, right = torch.meshgrid(middles.flip(0), middles, indexing="ij")  # the first row is the highest
    second = answer(start + torch.stack([right, up], dim=2).flatten(0, 1) * span)[:, 1]
    image = _legend(tuple(classes)).copy()
    image.paste(_painted(second.reshape(up.shape).numpy()), (EDGE, HEAD))
    places = ((inputs - start) / span * SIDE).round().int()
    for label in torch.unique(labels).tolist():
        marker = _marker(label)
        for column, row in torch.unique(places[labels == label], dim=0).tolist():
            image.paste(marker, (EDGE + column - MARKER // 2, HEAD + SIDE - row - MARKER // 2), marker)
    _scale(image, low.tolist(), high.tolist())
    return image


def answered_images(images: Tensor, probabilities: Tensor, labels: Tensor, classes: Sequence[str]) -> Image.Image:
    """Draw images with the predicted class of each, and its probability, as an RGB grid.

    Wrongly classified images have a red border, with their own class in brackets.
    """
    height, width = images.shape[2:]
    scale = max(1, math.ceil(56 / max(height, width)))
    beside, above = max(1, math.ceil((TILE / scale - width) / 2)), max(1, 4 // scale)
    certain, answers = probabilities.max(1)
    wrong = answers != labels
    around = torch.where(wrong[:, None], torch.tensor(WRONG), torch.ones(3))[:, :, None, None]
    tiles = around.repeat(1, 1, height + 2 * above, width + 2 * beside)
    tiles[:, :, above : above + height, beside : beside + width] = images
    captions = [
        f"{classes[answer]} {share:.2f}" + (f" ({classes[label]})" if answer != label else "")
        for answer, share, label in zip(answers.tolist(), certain.tolist(), labels.tolist(), strict=True)
    ]
    return grid(tiles, captions=captions, scale=scale)


def confusion(labels: Tensor, answers: Tensor, classes: Sequence[str]) -> Image.Image:
    """Draw how often each class is predicted for each class: a row for each class, a column for each answer.

    The larger its share of the row, the darker is a tile.
    """
    count = len(classes)
    counts = torch.bincount(labels * count + answers, minlength=count * count)
    shares = counts / counts.view(count, count).sum(1).clamp_min(1).repeat_interleave(count)
    dark = torch.tensor(CLASSES[0]) / 127.5 - 1
    colours = LIGHT + shares[:, None] * (dark - LIGHT)
    captions = [
        f"{label} taken for {answer}: {number}"
        for (label, answer), number in zip(itertools.product(classes, classes), counts.tolist(), strict=True)
    ]
    tiles = colours[:, :, None, None].expand(-1, -1, TILE // 2, TILE)
    return grid(tiles, columns=count, captions=captions, scale=1)


def _painted(second: npt.NDArray[np.float32]) -> Image.Image:
    """Draw the probability of the second class, smoothly, and the line where it is a half."""
    patches = Image.fromarray(second.astype(np.float32))
    share = np.asarray(patches.resize((SIDE, SIDE), Image.Resampling.BICUBIC))
    painted = _shades()[(share.clip(0, 1) * 255).round().astype(np.uint8)]
    down, across = np.gradient(share)
    # Pixels to the line, near it; the small numbers keep a map that is a half everywhere free of lines.
    distance = (np.abs(share - 0.5) + 1e-5) / np.maximum(np.hypot(down, across), 1e-6)
    near = distance < 3 * LINE
    ink = np.exp(-((distance[near] / LINE) ** 2))[:, None]
    painted[near] = (painted[near] + ink * (np.array(INK) - painted[near])).round()
    return Image.fromarray(painted)


@functools.cache
def _shades() -> npt.NDArray[np.uint8]:
    """Return the colours of the probabilities 0, 1/255, 2/255, ..., 1 of the second class: [256, 3]."""
    lean = np.linspace(-1, 1, 256)[:, None]  # -1 for the first class, 1 for the second
    towards = np.where(lean < 0, *(np.array(colour) - 255 for colour in CLASSES))
    return (255 + SOFT * np.abs(lean) * towards).round().astype(np.uint8)


@functools.cache
def _marker(label: int) -> Image.Image:
    """Draw an example: a square of the first class, a disc of the second, on white."""
    size = MARKER * FINER
    marker = Image.new("RGBA", (size, size), (*CLASSES[label], 0))
    draw = ImageDraw.Draw(marker)
    shape = draw.ellipse if label else draw.rectangle
    for inset, colour in ((0.06, INK), (0.12, PAPER), (0.22, CLASSES[label])):
        inset += 0 if label else 0.05  # a square looks larger than a disc
        shape((inset * size, inset * size, (1 - inset) * size, (1 - inset) * size), fill=(*colour, 255))
    return marker.resize((MARKER, MARKER), Image.Resampling.BOX)


@functools.lru_cache(maxsize=8)
def _legend(classes: tuple[str, ...]) -> Image.Image:
    """Draw the part that all maps of these classes share."""
    image = Image.new("RGB", (SIDE + 2 * EDGE, HEAD + SIDE + EDGE), PAPER)
    draw, at = ImageDraw.Draw(image), EDGE
    for label, name in enumerate(classes):
        image.paste(_marker(label), (at, (HEAD - MARKER) // 2), _marker(label))
        text = drawable(name)
        draw.text((at + MARKER + 5, HEAD / 2), text, fill=INK, font=font(TEXT), anchor="lm")
        at += MARKER + 5 + math.ceil(font(TEXT).getlength(text)) + 18
    return image


def _scale(image: Image.Image, low: list[float], high: list[float]) -> None:
    """Write the least and the largest numbers of the examples beside the map."""
    draw = ImageDraw.Draw(image)
    for quarter, ends in ((1, low), (3, high)):
        across, up = EDGE + quarter * SIDE / 4, HEAD + SIDE - quarter * SIDE / 4
        draw.text((across, HEAD + SIDE + 3), f"{ends[0]:.3g}", fill=PALE, font=font(SMALL), anchor="mt")
        draw.text((EDGE - 4, up), f"{ends[1]:.3g}", fill=PALE, font=font(SMALL), anchor="rm")
