"""`nox -s bench`: what gantool's training loop costs, as ratios within one run, and what its metrics cost.

The plain loop is what a course's notebook does: a DataLoader over PIL images, the discriminator's real and fake pass
apart, torch's default Adam. Both loops train the same networks on the same pictures, in turns inside of this process,
with one thread, and the thread's own processor time is compared: so other work on the machine falls on both alike.
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
from copy import deepcopy
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision import datasets, transforms

from gantool import engine, models
from gantool.batches import Labeled
from gantool.data.eggs import render
from gantool.data.prepare import prepare
from gantool.data.stream import Stream
from gantool.metrics import distances
from gantool.metrics.evaluate import features, numbers
from gantool.metrics.features import RandomFeatures
from gantool.metrics.learned import learn_views
from gantool.metrics.pictures import sliced_wasserstein
from gantool.models.base import Model
from gantool.models.blocks import ConvTranspose2d, Dropout
from gantool.recipe import Recipe
from gantool.trainer import Trainer

GOALS = {"gan14": 5.0, "gan28": 1.4, "cgan_egg": 2.5, "dcgan14": 1.5, "dcgan28": 1.0, "dcgan_tf28": 1.0}
"""How many times the plain loop's images per second each recipe must reach."""


class Photographs(Dataset[tuple[Tensor, int]]):
    """JPEG files, decoded, resized and scaled whenever they are asked for, as torchvision's ImageFolder does."""

    def __init__(self, files: list[bytes], transform: transforms.Compose) -> None:
        self.files, self.transform = files, transform

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.transform(Image.open(io.BytesIO(self.files[index])).convert("RGB")), 0


def pictures(recipe: Recipe, folder: Path) -> tuple[Dataset[tuple[Tensor, int]], Stream]:
    """Give a recipe's pictures as a notebook reads them, and as gantool does, from the same files.

    Digits are files in MNIST's format, read by torchvision's MNIST; eggs are JPEG files of 256 pixels.
    """
    size = recipe.data.height
    steps = [transforms.ToTensor(), transforms.Resize((size, size), antialias=True), transforms.Normalize(0.5, 0.5)]
    transform = transforms.Compose(steps)
    plain: Dataset[tuple[Tensor, int]]
    if recipe.data.source == "eggs":
        (folder / "Egg").mkdir()
        files = []
        for index in range(64):
            file = io.BytesIO()
            Image.fromarray(render("Egg", index, 256)).save(file, "JPEG", quality=90)
            files.append(file.getvalue())
            (folder / "Egg" / f"{index}.jpg").write_bytes(file.getvalue())
        plain = Photographs(files, transform)
        data = engine.change(recipe, {"data.source": str(folder), "data.classes": ["Egg"]}).data
    else:
        digits = prepare(engine.change(recipe, {"data.source": "digits", "data.size": 28}).data, folder)
        rows = np.random.default_rng(0).integers(0, len(digits), 4096)
        write_mnist(folder, digits.images[rows, 0], digits.labels[rows])
        plain = datasets.MNIST(folder, train=True, transform=transform)
        data = recipe.data
    return plain, Stream(prepare(data, folder), recipe.train.batch_size, 0, torch.device("cpu"))


def write_mnist(root: Path, images: np.ndarray, labels: np.ndarray) -> None:
    """Write images [N, H, W] and labels [N] as MNIST's four files, where torchvision looks for them."""
    raw = root / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for part in ("train", "t10k"):
        head = struct.pack(">4i", 0x803, *images.shape)
        (raw / f"{part}-images-idx3-ubyte").write_bytes(head + images.astype(np.uint8).tobytes())
        head = struct.pack(">2i", 0x801, len(labels))
        (raw / f"{part}-labels-idx1-ubyte").write_bytes(head + labels.astype(np.uint8).tobytes())


def plain_loop(model: Model, recipe: Recipe, dataset: Dataset[tuple[Tensor, int]]) -> Iterator[int]:
    """Train as a notebook does; yields the images of each step."""
    loss = nn.BCEWithLogitsLoss()
    adam = recipe.train.optimizer
    generator, discriminator = model.generator, model.discriminator
    steps = [torch.optim.Adam(net.parameters(), lr=adam.lr, betas=adam.betas) for net in (generator, discriminator)]
    conditional = recipe.model["name"] == "cgan"
    together = recipe.model["name"] == "dcgan_tf"
    loader = DataLoader(dataset, recipe.train.batch_size, shuffle=True, drop_last=True)
    while True:
        for images, labels in loader:
            ones, zeros = torch.ones(len(images), 1), torch.zeros(len(images), 1)
            told = (torch.zeros_like(labels),) if conditional else ()
            fake = generator(torch.randn(len(images), model.latent_dim), *told)
            steps[1].zero_grad()
            against = fake if together else fake.detach()
            fake_scores = discriminator(against, *told)
            loss_d = loss(discriminator(images, *told), ones) + loss(fake_scores, zeros)
            loss_d.backward(retain_graph=together)
            if not together:
                steps[1].step()
            steps[0].zero_grad()
            loss_g = loss(fake_scores if together else discriminator(fake, *told), ones)
            loss_g.backward()
            if together:
                steps[1].step()
            steps[0].step()
            loss_d.item(), loss_g.item()
            yield len(images)


def with_plain_layers(model: Model) -> Model:
    """Copy a model with torch's own layers in place of gantool's quicker ones."""
    model = deepcopy(model)
    for module in model.modules():
        for quicker, plain in ((ConvTranspose2d, nn.ConvTranspose2d), (Dropout, nn.Dropout)):
            if isinstance(module, quicker):
                module.__class__ = plain
    return model


def gantool_loop(model: Model, recipe: Recipe, stream: Stream) -> Iterator[int]:
    """Train as gantool does; yields the images of each step."""
    trainer = Trainer(model, recipe.train, torch.device("cpu"))
    epoch = 0
    while True:
        epoch += 1
        batch: Labeled
        for batch in stream.epoch(epoch):
            trainer.step(batch)
            yield len(batch.labels)


def pace(step: Callable[[], int], seconds: float) -> float:
    """Give images per second of processor time, over about `seconds`; at least two steps."""
    images, start, steps = 0, time.thread_time(), 0
    while time.thread_time() - start < seconds or steps < 2:
        images += step()
        steps += 1
    return images / (time.thread_time() - start)


def training(names: list[str], seconds: float, rounds: int) -> bool:
    """Measure the recipes; tells whether all goals are reached."""
    torch.set_num_threads(1)
    reached = True
    print(f"{'recipe':12} {'plain':>9} {'gantool':>9} {'ratio':>7} {'goal':>6}   images/s of one thread's own time")
    for name in names:
        recipe = engine.open_recipe(name)
        with tempfile.TemporaryDirectory() as folder:
            dataset, stream = pictures(recipe, Path(folder))
            torch.manual_seed(0)
            spec = engine.describe(recipe.data, Path(folder))
            model = models.build(recipe, spec)
            plain = plain_loop(with_plain_layers(model), recipe, dataset)
            fast = gantool_loop(model, recipe, stream)
            next(plain), next(fast)
            pairs = [(pace(plain.__next__, seconds), pace(fast.__next__, seconds)) for _ in range(rounds)]
            del stream, fast
        slow, quick = (float(np.median([pair[i] for pair in pairs])) for i in (0, 1))
        ratio = float(np.median([pair[1] / pair[0] for pair in pairs]))
        reached &= ratio >= GOALS[name]
        mark = "" if ratio >= GOALS[name] else "  below its goal"
        print(f"{name:12} {slow:9,.0f} {quick:9,.0f} {ratio:6.2f}x {GOALS[name]:5.1f}x{mark}", flush=True)
    return reached


METRICS = {
    # shape: milliseconds of one thread for 1,000 images that a measurement may take
    (1, 14, 14): {"rand": 118, "learned": 76, "sliced Wasserstein": 2100},
    (1, 28, 28): {"rand": 329, "learned": 203, "sliced Wasserstein": 3500},
    (3, 64, 64): {"rand": 2140, "learned": 1390, "sliced Wasserstein": 8650},
}
STATISTICS = {"fd": 2.4, "kd": 22, "density, coverage": 60, "precision, recall": 60, "1-NN": 41}
"""The same for 1,000 against 1,000 vectors of 64 features."""


def milliseconds(task: Callable[[], object], rounds: int = 5) -> float:
    """Give the processor time of a task, the least of some rounds."""
    task()
    times = []
    for _ in range(rounds):
        start = time.thread_time()
        task()
        times.append(1000 * (time.thread_time() - start))
    return min(times)


def measuring() -> bool:
    """Measure what metrics cost; tells whether all goals are reached."""
    torch.set_num_threads(1)
    rows: list[tuple[str, float, float]] = []
    generator = torch.Generator().manual_seed(0)
    for shape, goals in METRICS.items():
        real = torch.randint(256, (1000, *shape), generator=generator, dtype=torch.uint8)
        fake = torch.randint(256, (1000, *shape), generator=generator, dtype=torch.uint8)
        rand = RandomFeatures.fit([numbers(real)])
        learned = learn_views(real[:250], real[250:300])
        name = "x".join(map(str, shape))
        rows += [
            (f"{name} rand", milliseconds(lambda extractor=rand, fake=fake: features(extractor, fake)), goals["rand"]),
            (
                f"{name} pretext or judge",
                milliseconds(lambda extractor=learned, fake=fake: features(extractor, fake)),
                goals["learned"],
            ),
            (
                f"{name} sliced Wasserstein",
                milliseconds(lambda real=real, fake=fake: sliced_wasserstein(numbers(real), numbers(fake)), 1),
                goals["sliced Wasserstein"],
            ),
        ]
    one, other = (torch.randn(1000, 64, generator=generator) for _ in range(2))
    tasks = {
        "fd": lambda: distances.frechet_distance(one, other),
        "kd": lambda: distances.kernel_distance(one, other),
        "density, coverage": lambda: distances.density_coverage(one, other),
        "precision, recall": lambda: distances.precision_recall(one, other),
        "1-NN": lambda: distances.nearest_neighbour_accuracy(one, other),
    }
    rows += [(name, milliseconds(task), STATISTICS[name]) for name, task in tasks.items()]
    print(f"{'1,000 images':28} {'ms':>8} {'goal':>8}   of one thread's own time")
    for name, spent, goal in rows:
        print(f"{name:28} {spent:8.1f} {goal:8.1f}{'' if spent <= goal else '  above its goal'}", flush=True)
    return all(spent <= goal for _, spent, goal in rows)


def main() -> None:
    """Measure what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("recipes", nargs="*", default=list(GOALS), help="which recipes; all without any")
    parser.add_argument("--seconds", type=float, default=4.0, help="of processor time for a loop in a round")
    parser.add_argument("--rounds", type=int, default=5, help="in which the loops take turns")
    chosen = parser.parse_args()
    print(json.dumps({"machine": platform.processor() or platform.machine(), "torch": torch.__version__}))
    cheap = measuring()
    if not (training(chosen.recipes, chosen.seconds, chosen.rounds) and cheap):
        raise SystemExit("bench: a goal was not reached")


if __name__ == "__main__":
    main()
