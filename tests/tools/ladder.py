"""`nox -s ladder`: how far above undamaged images `fd` puts damaged ones, in standard deviations.

Fresh images, which are in no reference set, are damaged in five strengths. `fd` of 1,000 of them is compared with
`fd` of 1,000 undamaged ones. A deviation is that of the undamaged `fd` over other draws of the 1,000 images.
"""

from __future__ import annotations

import argparse
import gzip
import io
import math
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from gantool.data.sources.eggs import factors, render
from gantool.metrics import distances
from gantool.metrics.evaluate import Evaluator, combined, features
from gantool.metrics.reference import ReferenceSet, learn
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from scipy.ndimage import gaussian_filter
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample

Images = NDArray[np.uint8]  # [N, C, H, W]
Labels = NDArray[np.int64]  # [N]

Found = dict[tuple[str, float], tuple[float, float]]

REFERENCES = (60, 240, 1000)
FRESH, COUNT, DRAWS = 2000, 1000, 12  # fresh images, of which so many are measured, so often
FIRST = 300_000  # of the rendered images, beyond those of any dataset
PHOTOS = ("astronaut", "chelsea", "coffee", "rocket", "immunohistochemistry")

GOALS = {
    ("noise", 8): "seen",
    ("chequers, 2 px", 8): "seen",
    ("chequers, 4 px", 8): "seen",
    ("blur", 1): "seen",
    ("JPEG", 30): "seen",
    ("classes left", 0.9): "seen",
    ("shift", 1): "harmless",
    ("mirror", 1): "harmless",
}
"""What a person sees at a glance at twice its size has to lie 3 deviations above; what is harmless within 1."""
SYMMETRIC = {"eggs", "leaves"}  # sets of which a mirrored image is as likely as the image
LABELLED = {"digits", "fashion", "foods"}  # whose classes a recipe knows


def eggs(count: int) -> tuple[Images, Labels]:
    """Render eggs of 64x64 pixels; the labels are their varieties."""
    images = [render("Egg", FIRST + index, 64).transpose(2, 0, 1) for index in range(count)]
    kinds = [factors("Egg", FIRST + index).kind for index in range(count)]
    names = sorted(set(kinds))
    return np.stack(images), np.array([names.index(kind) for kind in kinds])


def foods(count: int) -> tuple[Images, Labels]:
    """Render ten varieties of two foods, 64x64 pixels."""
    found = [(name, FIRST + index) for index in range(count) for name in ("Egg", "Tomato")][:count]
    kinds = [f"{name} {factors(name, index).kind}" for name, index in found]
    names = sorted(set(kinds))
    images = np.stack([render(name, index, 64).transpose(2, 0, 1) for name, index in found])
    return images, np.array([names.index(kind) for kind in kinds])


def digits(_: int) -> tuple[Images, Labels]:
    """Return scikit-learn's digits, enlarged to 28x28 pixels."""
    from sklearn.datasets import load_digits

    found = load_digits()
    small = [Image.fromarray((image * 255 / 16).round().astype(np.uint8)) for image in found.images]
    images = np.stack([np.asarray(image.resize((28, 28), Image.Resampling.BICUBIC)) for image in small])[:, None]
    order = np.random.default_rng(1).permutation(len(images))
    return images[order], found.target[order].astype(np.int64)


def photographs(count: int) -> tuple[Images, Labels]:
    """Cut crops of 64 to 160 pixels out of five photographs, at 64x64 pixels."""
    from skimage import data

    whole = [getattr(data, name)()[..., :3] for name in PHOTOS]
    random = np.random.default_rng(3)
    images = []
    for index in range(count):
        photo = whole[index % len(whole)]
        side = int(random.integers(64, 161))
        top, left = (random.integers(0, size - side + 1) for size in photo.shape[:2])
        crop = Image.fromarray(photo[top : top + side, left : left + side])
        images.append(np.asarray(crop.resize((64, 64), Image.Resampling.LANCZOS)).transpose(2, 0, 1))
    order = random.permutation(count)
    return np.stack(images)[order], (order % len(whole)).astype(np.int64)


def leaves(count: int) -> tuple[Images, Labels]:
    """Draw leaves with veins on paper, 64x64 pixels, of four kinds. Made for this test: no choice was made on them."""
    random = np.random.default_rng(4)
    down, right = np.mgrid[0:128, 0:128] / 128 - 0.5
    widths, tips = (0.35, 0.5, 0.7, 0.25), (0.8, 1.0, 1.3, 1.0)
    colours = np.array(((0.25, 0.5, 0.12), (0.5, 0.45, 0.1), (0.6, 0.25, 0.1), (0.15, 0.4, 0.25)))
    images, kinds = [], random.integers(4, size=count)
    for kind in kinds:
        angle, x, y = random.uniform(-0.6, 0.6), *random.uniform(-0.08, 0.08, 2)
        across = (right - x) * math.cos(angle) + (down - y) * math.sin(angle)
        along = (down - y) * math.cos(angle) - (right - x) * math.sin(angle)
        length = random.uniform(0.3, 0.42)
        place = np.clip((along / length + 1) / 2, 0, 1)
        width = length * widths[kind] * random.uniform(0.9, 1.1) * np.sin(np.pi * place ** tips[kind]) ** 0.9
        inside = np.where(np.abs(along) < length, width - np.abs(across), -1)
        cover = 1 / (1 + np.exp(np.clip(-150 * inside, -50, 50)))[..., None]
        veins = np.exp(-((across / 0.008) ** 2))
        veins += 0.6 * np.exp(-((((along * 12 + np.abs(across) * 14) % 1 - 0.5) / 0.08) ** 2))
        grain = np.kron(random.standard_normal((16, 16)), np.ones((8, 8)))[..., None] * 0.01
        paper = np.array((0.93, 0.9, 0.85)) * random.uniform(0.85, 1.05) + grain
        leaf = colours[kind] * random.uniform(0.85, 1.15, 3) * (1 + 0.25 * along[..., None] / length)
        image = paper * (1 - cover) + (leaf + 0.18 * veins[..., None]) * cover
        image = image.reshape(64, 2, 64, 2, 3).mean((1, 3)) + 0.01 * random.standard_normal((64, 64, 3))
        images.append((image.clip(0, 1) * 255 + 0.5).astype(np.uint8).transpose(2, 0, 1))
    return np.stack(images), kinds.astype(np.int64)


def fashion(folder: Path, count: int) -> tuple[Images, Labels]:
    """Read Fashion-MNIST's training files, compressed as published."""
    files = [folder / f"train-{name}-ubyte.gz" for name in ("images-idx3", "labels-idx1")]
    images, labels = (np.frombuffer(gzip.decompress(file.read_bytes()), np.uint8) for file in files)
    return images[16:].reshape(-1, 1, 28, 28)[:count], labels[8:][:count].astype(np.int64)


def emoji(font: Path) -> tuple[Images, Labels]:
    """Draw the emoji of a font with colour bitmaps (Noto Color Emoji), 64x64 pixels on white."""
    face = ImageFont.truetype(str(font), 109)
    blocks = ((0x1F300, 0x1F650), (0x1F680, 0x1F700), (0x1F900, 0x1FB00), (0x2600, 0x27C0))
    images = []
    for code in (code for block in blocks for code in range(*block)):
        image = Image.new("RGB", (136, 128), "white")
        ImageDraw.Draw(image).text((0, 0), chr(code), font=face, embedded_color=True)
        if (np.asarray(image) < 250).any():
            small = image.crop((4, 0, 132, 128)).resize((64, 64), Image.Resampling.LANCZOS)
            images.append(np.asarray(small).transpose(2, 0, 1))
    order = np.random.default_rng(2).permutation(len(images))
    return np.stack(images)[order], np.zeros(len(images), np.int64)


def _bytes(images: NDArray[np.floating]) -> Images:
    return np.round(images).clip(0, 255).astype(np.uint8)


def _jpeg(images: Images, quality: float) -> Images:
    made = np.empty_like(images)
    for index, image in enumerate(images):
        file = io.BytesIO()
        Image.fromarray(image.transpose(1, 2, 0) if len(image) == 3 else image[0]).save(file, "JPEG", quality=quality)
        decoded = np.asarray(Image.open(file))
        made[index] = decoded.transpose(2, 0, 1) if decoded.ndim == 3 else decoded
    return made


def _chequered(images: Images, amplitude: float, period: int) -> Images:
    rows, columns = (np.arange(side) // (period // 2) for side in images.shape[2:])
    signs = np.where((rows[:, None] + columns) % 2, 1, -1)
    return _bytes(images + amplitude * signs)


def _turned(images: Images, degrees: float, random: np.random.Generator) -> Images:
    angles = torch.from_numpy(random.uniform(-1, 1, len(images)) * math.radians(degrees)).float()
    rows = torch.stack([angles.cos(), -angles.sin(), 0 * angles, angles.sin(), angles.cos(), 0 * angles], 1)
    whole = torch.from_numpy(images).float()
    grid = affine_grid(rows.view(-1, 2, 3), list(whole.shape), align_corners=False)
    made = grid_sample(whole, grid, mode="bicubic", padding_mode="border", align_corners=False)
    return _bytes(made.numpy())


def _shifted(images: Images, pixels: int, random: np.random.Generator) -> Images:
    """Shift each image in one of eight directions; the border is repeated."""
    padded = np.pad(images, ((0, 0), (0, 0), (pixels, pixels), (pixels, pixels)), mode="edge")
    height, width = images.shape[2:]
    ways = [(down, right) for down in (-1, 0, 1) for right in (-1, 0, 1) if down or right]
    tops = [ways[way] for way in random.integers(0, len(ways), len(images))]
    parts = [
        image[:, pixels * (1 + down) : pixels * (1 + down) + height, pixels * (1 + right) :][:, :, :width]
        for image, (down, right) in zip(padded, tops, strict=True)
    ]
    return np.stack(parts)


def _red(images: Images, amount: float) -> Images:
    made = images.astype(np.float64)
    made[:, 0] += amount
    return _bytes(made)


Damage = Callable[[Images, float, np.random.Generator], Images]
DAMAGES: dict[str, tuple[tuple[float, ...], str, Damage]] = {
    "noise": ((2, 4, 8, 16, 32), "sd, of 255", lambda x, s, r: _bytes(x + s * r.standard_normal(x.shape))),
    "chequers, 2 px": ((2, 4, 8, 16, 32), "amplitude", lambda x, s, _: _chequered(x, s, 2)),
    "chequers, 4 px": ((2, 4, 8, 16, 32), "amplitude", lambda x, s, _: _chequered(x, s, 4)),
    "blur": ((0.25, 0.5, 1, 1.5, 2), "sigma, px", lambda x, s, _: _bytes(gaussian_filter(x * 1.0, (0, 0, s, s)))),
    "JPEG": ((90, 60, 30, 15, 5), "quality", lambda x, s, _: _jpeg(x, s)),
    "posterised": ((64, 32, 16, 8, 4), "levels", lambda x, s, _: _bytes(np.round(x / 255 * (s - 1)) / (s - 1) * 255)),
    "more red": ((2, 4, 8, 16, 32), "of 255", lambda x, s, _: _red(x, s)),
    "contrast": ((0.95, 0.9, 0.8, 0.65, 0.5), "times", lambda x, s, _: _bytes((x - 127.5) * s + 127.5)),
    "rotation": ((1, 2, 5, 10, 20), "up to, degrees", lambda x, s, r: _turned(x, s, r)),
    "shift": ((1, 2, 3, 4, 8), "px", lambda x, s, r: _shifted(x, int(s), r)),
    "mirror": (
        (0.1, 0.25, 0.5, 0.75, 1),
        "share",
        lambda x, s, r: np.where((r.random(len(x)) < s)[:, None, None, None], x[..., ::-1], x),
    ),
}
"""Strengths, what they are, and what makes them: each image is damaged by itself."""
DRAWN = {
    "classes left": ((0.9, 0.8, 0.7, 0.5, 0.2), "share"),
    "different images": ((400, 200, 100, 50, 20), "of 1,000"),
    "copies": ((0.1, 0.25, 0.5, 0.75, 1), "share"),
}
"""What is wrong with the set, and not with any image of it."""


class Ladder:
    """A reference set, and fresh images of the same kind.

    Args:
        name: of the set.
        images: all of them, in random order.
        labels: their classes.
        size: of the reference set. A quarter as many are held out, and what follows is fresh.
        folder: where learned extractors are kept.
    """

    def __init__(self, name: str, images: Images, labels: Labels, size: int, folder: Path) -> None:
        end = size + max(12, size // 4)
        self.fresh, self.labels = images[end : end + FRESH], labels[end : end + FRESH]
        self.count = min(COUNT, len(self.fresh) // 2)
        own = labels if name in LABELLED else np.zeros_like(labels)
        classes = tuple(map(str, range(int(own.max()) + 1)))
        counts = np.bincount(own[:size], minlength=len(classes))
        reality = ReferenceSet(
            train=torch.from_numpy(images[:size].copy()),
            held_out=torch.from_numpy(images[size:end].copy()),
            train_labels=torch.from_numpy(own[:size]),
            held_out_labels=torch.from_numpy(own[size:end]),
            classes=classes,
            shares=torch.from_numpy(counts / counts.sum()),
            split=0.2,
        )
        self.evaluator = Evaluator(reality, learn(reality, "auto", folder, f"{name}-{size}"), self.count)
        self.undamaged = self._features(self.fresh)
        self.base = [self._fd(self.undamaged, self._rows(draw)) for draw in range(DRAWS)]

    def measure(self) -> Found:
        """Return by damage and strength the deviations above undamaged images: of `fd`, and of version 0.1's."""
        found: Found = {}
        for name, (strengths, _, damage) in DAMAGES.items():
            if name == "more red" and self.fresh.shape[1] == 1:
                continue
            for strength in strengths:
                made = self._features(damage(self.fresh, strength, np.random.default_rng(7)))
                found[name, strength] = self._above([self._fd(made, self._rows(draw)) for draw in range(DRAWS)])
        for name, (strengths, _) in DRAWN.items():
            for strength in strengths:
                drawn = [self._drawn(name, strength, draw) for draw in range(DRAWS)]
                values = [value for value in drawn if value is not None]
                if values:
                    found[name, strength] = self._above(values)
        return found

    def _rows(self, draw: int) -> NDArray[np.int64]:
        return np.random.default_rng(draw).permutation(len(self.fresh))[: self.count]

    def _features(self, images: Images) -> dict[str, Tensor]:
        whole = torch.from_numpy(np.array(images))
        return {name: features(extractor, whole) for name, extractor in self.evaluator.extractors.items()}

    def _fd(self, made: dict[str, Tensor], rows: NDArray[np.int64]) -> tuple[float, float]:
        """Return `fd` and version 0.1's, of these rows."""
        real, units = self.evaluator.real, self.evaluator.floor.units
        raw = {name: distances.frechet_distance(real[name], part[rows]) for name, part in made.items()}
        old = [raw[name] ** 0.5 for name in ("rand", "pretext") if name in raw]
        return combined({name: value / units[name] for name, value in raw.items()}), math.prod(old)

    def _drawn(self, name: str, strength: float, draw: int) -> tuple[float, float] | None:
        """Return `fd` of undamaged images that are badly drawn; None where the set has no such damage."""
        random, everything = np.random.default_rng(draw), len(self.fresh)
        if name == "classes left":
            classes = np.roll(np.unique(self.labels), draw)
            kept = classes[: round(strength * len(classes))]
            if not 0 < len(kept) < len(classes):
                return None
            return self._fd(
                self.undamaged, random.permutation(np.flatnonzero(np.isin(self.labels, kept)))[: self.count]
            )
        if name == "different images":
            return self._fd(self.undamaged, random.choice(random.permutation(everything)[: int(strength)], self.count))
        real, copies = self.evaluator.real, round(strength * self.count)
        made = {name: torch.cat([part, real[name]]) for name, part in self.undamaged.items()}
        chosen = everything + random.integers(0, len(self.evaluator.reality.train), copies)
        return self._fd(made, np.concatenate([random.permutation(everything)[: self.count - copies], chosen]))

    def _above(self, values: list[tuple[float, float]]) -> tuple[float, float]:
        # Two draws share images: of the variance over independent draws they show this much.
        shown = math.sqrt(1 - self.count / len(self.fresh))
        both = []
        for some, others in zip(zip(*values, strict=True), zip(*self.base, strict=True), strict=True):
            both.append(float((np.mean(some) - np.mean(others)) / (np.std(others, ddof=1) / shown)))
        return both[0], both[1]


def short(value: float) -> str:
    """Write a number of deviations."""
    return f"{value:.1f}" if abs(value) < 10 else f"{value:,.0f}"


def tables(found: dict[str, dict[int, Found]]) -> None:
    """Print the goals of every set, and the whole ladder of 240 references."""
    print("\n| set | references | " + " | ".join(f"{name} {strength:g}" for name, strength in GOALS) + " |")
    print("|---|---|" + "---|" * len(GOALS))
    for name, sizes in found.items():
        for size, rows in sizes.items():
            cells = []
            for damage, strength in GOALS:
                value = rows.get((damage, strength))
                aside = damage == "mirror" and name not in SYMMETRIC
                aside |= damage == "classes left" and name not in LABELLED
                if value is None or aside:
                    cells.append("")
                    continue
                met = value[0] >= 3 if GOALS[damage, strength] == "seen" else abs(value[0]) <= 1
                cells.append(f"{short(value[0])}{'' if met else ' !'} ({short(value[1])})")
            print(f"| {name} | {size:,} | " + " | ".join(cells) + " |")
    print("\nThe fd of gantool 0.1 in brackets; ! misses its goal\n")
    sets = [name for name, sizes in found.items() if 240 in sizes]
    print("| damage | strengths | " + " | ".join(sets) + " |")
    print("|---|---|" + "---|" * len(sets))
    for damage in (*DAMAGES, *DRAWN):
        strengths, unit = (DAMAGES | DRAWN)[damage][:2]
        cells = []
        for name in sets:
            values = [found[name][240].get((damage, strength)) for strength in strengths]
            cells.append(" ".join(short(value[0]) for value in values if value))
        print(f"| {damage} | {' '.join(f'{value:g}' for value in strengths)} ({unit}) | " + " | ".join(cells) + " |")


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sets", nargs="*", help="which sets; all without any")
    parser.add_argument("--fashion", type=Path, metavar="FOLDER", help="of Fashion-MNIST's four files")
    parser.add_argument("--emoji", type=Path, metavar="FONT", help="Noto Color Emoji's file, with bitmaps")
    parser.add_argument("--references", type=int, nargs="+", default=REFERENCES)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    count = FRESH + 1250
    known: dict[str, Callable[[], tuple[Images, Labels]]] = {
        "eggs": lambda: eggs(count),
        "foods": lambda: foods(count),
        "digits": lambda: digits(count),
        "photographs": lambda: photographs(count),
        "leaves": lambda: leaves(count),
    }
    if chosen.fashion:
        known["fashion"] = lambda: fashion(chosen.fashion, count)
    if chosen.emoji:
        known["emoji"] = lambda: emoji(chosen.emoji)
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for name in chosen.sets or known:
            images, labels = known[name]()
            found[name] = {}
            for size in chosen.references:
                ladder = Ladder(name, images, labels, size, Path(folder))
                base = np.mean(ladder.base, axis=0)
                print(
                    f"{name}, {size} references: {ladder.count:,} of {len(ladder.fresh):,} fresh images a draw have fd "
                    f"{base[0]:.2f} by {', '.join(ladder.evaluator.extractors)}",
                    flush=True,
                )
                found[name][size] = ladder.measure()
    tables(found)


if __name__ == "__main__":
    main()
