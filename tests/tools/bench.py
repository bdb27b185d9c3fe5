"""`nox -s bench`: what gantool's training costs, as ratios within one run, and what its metrics cost.

The rival is what a person would have written (`rivals`): the course notes' networks in torch's own layers, a DataLoader
over PIL images (of the TensorFlow tutorial over a tensor in memory, as there), the discriminator's real and fake pass
apart, torch's default Adam. It measures nothing and writes nothing.

gantool's side is `engine.train`, which `gantool train` loops over: a whole run of a few epochs, from its first step to
its last report, with its metrics, images, log and checkpoints. What is done once for a dataset,
decoding it and learning its extractors, is not in it. The first and the last epoch are always measured. A run takes
half a minute or more, so that measurements have about the share of it that they have of a real one, a tenth at most.
`measured` is that share.

Both see the same images, take turns inside of this process every half second, with one thread, and all processor
time of the process is compared: so other work on the machine falls on both alike.
"""

from __future__ import annotations

import argparse
import io
import json
import platform
import struct
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from gantool import devices
from gantool.data.prepare import prepare
from gantool.data.sources.eggs import render
from gantool.images import to_float
from gantool.metrics import distances
from gantool.metrics.evaluate import features
from gantool.metrics.features import RandomFeatures, TextureFeatures
from gantool.metrics.learned import learn_views
from gantool.recipe.blocks import Recipe
from gantool.recipe.load import dump
from gantool.runs import Run
from gantool.training import engine, setup
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, TensorDataset
from torchvision import datasets, transforms

import rivals


class Race(NamedTuple):
    """How a recipe is raced.

    Args:
        goal: how many times the rival's images per second it must reach.
        images: in the training data, as many as the notes' where that takes no longer than a minute.
        epochs: of gantool's run.
    """

    goal: float
    images: int
    epochs: int


RACES = {
    "gan14": Race(5.0, 60_000, 30),
    "gan28": Race(1.5, 30_000, 4),
    "cgan_egg": Race(2.2, 60, 250),
    "dcgan14": Race(1.4, 30_000, 4),
    "dcgan28": Race(1.1, 5_000, 4),
    "dcgan_tf28": Race(1.1, 5_000, 4),
}


class Photographs(Dataset[tuple[Tensor, int]]):
    """JPEG files, decoded, resized and scaled whenever they are asked for, as torchvision's ImageFolder does."""

    def __init__(self, files: list[bytes], transform: transforms.Compose) -> None:
        self.files, self.transform = files, transform

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.transform(Image.open(io.BytesIO(self.files[index])).convert("RGB")), 0


def prepared(recipe: Recipe, count: int, folder: Path) -> tuple[Dataset[tuple[Tensor, ...]], Recipe]:
    """Return a recipe's images as a notebook reads them, and the recipe that reads the same files.

    Digits are files in MNIST's format, read by torchvision's MNIST; eggs are JPEG files of 256 pixels.
    """
    size = recipe.data.height
    steps = [transforms.ToTensor(), transforms.Resize((size, size), antialias=True), transforms.Normalize(0.5, 0.5)]
    transform = transforms.Compose(steps)
    if recipe.data.source == "eggs":
        (folder / "food" / "Egg").mkdir(parents=True)
        files = []
        for index in range(count):
            file = io.BytesIO()
            Image.fromarray(render("Egg", index, 256)).save(file, "JPEG", quality=90)
            files.append(file.getvalue())
            (folder / "food" / "Egg" / f"{index}.jpg").write_bytes(file.getvalue())
        changes = {"data.source": str(folder / "food"), "data.classes": ["Egg"]}
        return Photographs(files, transform), engine.change(recipe, changes)
    digits = prepare(engine.change(recipe, {"data.source": "digits", "data.size": 28}).data, folder)
    rows = np.random.default_rng(0).integers(0, len(digits), count)
    images, labels = digits.images[rows, 0], digits.labels[rows]
    write_mnist(folder, images, labels)
    if recipe.model.name == "dcgan_tf":
        tensor = torch.from_numpy(images).float().div(127.5).sub(1)[:, None]
        return TensorDataset(tensor, torch.from_numpy(labels)), recipe
    return datasets.MNIST(folder, train=True, transform=transform), recipe


def write_mnist(root: Path, images: np.ndarray, labels: np.ndarray) -> None:
    """Write images [N, H, W] and labels [N] as MNIST's four files, where torchvision looks for them."""
    raw = root / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for part in ("train", "t10k"):
        head = struct.pack(">4i", 0x803, *images.shape)
        (raw / f"{part}-images-idx3-ubyte").write_bytes(head + images.astype(np.uint8).tobytes())
        head = struct.pack(">2i", 0x801, len(labels))
        (raw / f"{part}-labels-idx1-ubyte").write_bytes(head + labels.astype(np.uint8).tobytes())


def rival_of(name: str, dataset: Dataset[tuple[Tensor, ...]]) -> Iterator[int]:
    """Start the rival's training, which has no end."""
    torch.manual_seed(0)
    rival = rivals.NETWORKS[name]()
    loader = DataLoader(dataset, batch_size=rival.batch_size, shuffle=True)
    return rivals.LOOPS.get(name, rivals.alternating)(rival, loader)


class Clock:
    """Processor time of the whole process, and the images that it was spent on."""

    def __init__(self) -> None:
        self.seconds, self.images = 0.0, 0

    def next(self, steps: Iterator[int]) -> bool:
        """Take the next number of images. Return whether there was one."""
        start = time.process_time()
        images = next(steps, None)
        self.seconds += time.process_time() - start
        self.images += images or 0
        return images is not None

    @property
    def pace(self) -> float:
        """Images per second."""
        return self.images / self.seconds


def race(name: str, images: int, epochs: int) -> tuple[Clock, Clock, float]:
    """Train with the rival and with gantool in turns. Return both clocks and the share of measurements in gantool's."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        dataset, recipe = prepared(engine.open_recipe(name, {"train.epochs": epochs}), images, folder)
        materials = setup.prepare_training(recipe, folder)
        run = Run.create(dump(recipe), name=name, out=folder / "run")
        reports = []

        def training() -> Iterator[int]:
            for report in engine.train(recipe, run, data_dir=folder, device="cpu", materials=materials):
                yield report.images - (reports[-1].images if reports else 0)
                reports.append(report)

        rival, own = Clock(), Clock()
        plain, ours = rival_of(name, dataset), training()
        next(plain)  # what torch does only once is nobody's
        while own.next(ours):
            devices.keep_freed_memory(False)  # gantool's training turns it on, and a plain loop has it off
            while rival.seconds < own.seconds:
                rival.next(plain)
            devices.keep_freed_memory()
        return rival, own, reports[-1].measured_seconds / reports[-1].seconds


def training(names: list[str], epochs: float) -> bool:
    """Race the recipes. Return whether all goals are reached."""
    torch.set_num_threads(1)
    reached = True
    print(f"{'recipe':12} {'rival':>9} {'gantool':>9} {'ratio':>7} {'goal':>6} {'measured':>9}   images/s of CPU time")
    for name in names:
        goal, images, usual = RACES[name]
        rival, own, share = race(name, images, max(1, round(epochs * usual)))
        ratio = own.pace / rival.pace
        reached &= ratio >= goal
        mark = "" if ratio >= goal else "  below its goal"
        print(
            f"{name:12} {rival.pace:9,.0f} {own.pace:9,.0f} {ratio:6.2f}x {goal:5.1f}x {share:9.1%}{mark}", flush=True
        )
    return reached


METRICS = {
    # shape: milliseconds of one thread for 1,000 images that a measurement may take
    (1, 14, 14): {"rand": 118, "texture": 30, "pretext or judge": 76},
    (1, 28, 28): {"rand": 329, "texture": 60, "pretext or judge": 203},
    (3, 64, 64): {"rand": 2140, "texture": 200, "pretext or judge": 1390},
}
STATISTICS: dict[str, tuple[Callable[[Tensor, Tensor], object], float]] = {
    "fd": (distances.frechet_distance, 2.4),
    "fd with its deviation": (distances.frechet_terms, 12),
    "kd": (distances.kernel_distance, 22),
    "density, coverage": (distances.density_coverage, 60),
    "precision, recall": (distances.precision_recall, 60),
    "1-NN": (distances.nearest_neighbour_accuracy, 41),
}
"""The same for 1,000 against 1,000 vectors of 64 features."""


def milliseconds(task: Callable[[], object], rounds: int = 5) -> float:
    """Return the processor time of a task, the least of some rounds."""
    task()
    times = []
    for _ in range(rounds):
        start = time.thread_time()
        task()
        times.append(1000 * (time.thread_time() - start))
    return min(times)


def measuring() -> bool:
    """Measure what metrics cost. Return whether all goals are reached."""
    torch.set_num_threads(1)
    rows: list[tuple[str, float, float]] = []
    generator = torch.Generator().manual_seed(0)
    for shape, goals in METRICS.items():
        real, fake = torch.randint(256, (2, 1000, *shape), generator=generator, dtype=torch.uint8)
        extractors = {
            "rand": RandomFeatures.fit([to_float(real)]),
            "texture": TextureFeatures(),
            "pretext or judge": learn_views(real[:250], real[250:300]),
        }
        for name, extractor in extractors.items():
            spent = milliseconds(lambda extractor=extractor, fake=fake: features(extractor, fake))
            rows.append((f"{'x'.join(map(str, shape))} {name}", spent, goals[name]))
    one, other = torch.randn(2, 1000, 64, generator=generator)
    for name, (compare, goal) in STATISTICS.items():
        rows.append((name, milliseconds(lambda compare=compare: compare(one, other)), goal))
    print(f"{'1,000 images':28} {'ms':>8} {'goal':>8}   of one thread's own time")
    for name, spent, goal in rows:
        print(f"{name:28} {spent:8.1f} {goal:8.1f}{'' if spent <= goal else '  above its goal'}", flush=True)
    return all(spent <= goal for _, spent, goal in rows)


def main() -> None:
    """Measure what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("recipes", nargs="*", default=list(RACES), help="which recipes; all without any")
    parser.add_argument("--epochs", type=float, default=1.0, help="times the usual epochs of a run")
    chosen = parser.parse_args()
    print(json.dumps({"machine": platform.processor() or platform.machine(), "torch": torch.__version__}))
    cheap = measuring()
    if not (training(chosen.recipes, chosen.epochs) and cheap):
        raise SystemExit("bench: a goal was not reached")


if __name__ == "__main__":
    main()
