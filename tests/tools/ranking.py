"""`nox -s ranking`: which metric ranks generators like a better judge, on 64x64 eggs.

Many small DCGANs with different settings are trained, and images of each are kept after several numbers of steps. Every
metric that a run can afford scores them against the run's training images. The metrics are compared with a judge that
no run can afford: the Fréchet distance to 4,000 new eggs, on the features of a network that learned the variety, place,
size and angle of 12,000 other eggs from the truth.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from gantool import devices, models
from gantool.data.loader import Loader, split
from gantool.data.prepare import prepare
from gantool.data.sources.eggs import factors, render
from gantool.images import to_float, to_uint8
from gantool.metrics import distances
from gantool.metrics.evaluate import Evaluator, combined, features
from gantool.metrics.features import RandomFeatures, TextureFeatures
from gantool.metrics.learned import learn_labels, learn_views
from gantool.metrics.reference import ReferenceSet
from gantool.models.base import GeneratorInput
from gantool.training import engine
from gantool.training.trainer import Trainer
from scipy.stats import spearmanr
from torch import Tensor, nn
from torch.nn import functional as F

MOMENTS = (0, 100, 250, 500, 1000)  # training steps at which images are kept
CONFIGURATIONS = 20
FAKES = 500
REFERENCES = (60, 240)  # training images that the metrics may see
GOLD_IMAGES, GOLD_STEPS = 12_000, 1500
NETWORKS = {
    "model.name": "dcgan",
    "model.generator": [[64, 4, 1, 0], [48, 4, 2, 1], [32, 4, 2, 1], [16, 4, 2, 1], [3, 4, 2, 1]],
    "model.discriminator": [[16, 4, 2, 1], [32, 4, 2, 1], [48, 4, 2, 1], [64, 4, 2, 1], [1, 4, 1, 0]],
}
DATA = {"data.source": "eggs", "data.size": 64, "data.channels": 3, "data.classes": ["Egg"]}


def configurations() -> list[dict[str, object]]:
    """Spread learning rate, momentum, latent size and dropout over their ranges."""
    points = torch.quasirandom.SobolEngine(4, scramble=True, seed=1).draw(CONFIGURATIONS).tolist()
    return [
        {
            "train.optimizer.lr": 10 ** (-4.3 + 2.3 * rate),
            "train.optimizer.betas": [(0.0, 0.5, 0.9)[int(3 * beta)], 0.999],
            "model.latent_dim": (4, 16, 64, 100)[int(4 * size)],
            "model.dropout": (0.0, 0.25)[int(2 * dropout)],
        }
        for rate, beta, size, dropout in points
    ]


def generate(folder: Path, data_dir: Path, device: torch.device) -> None:
    """Train every configuration that has no images yet, and keep its images."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, changes in enumerate(configurations()):
        path = folder / f"{number:02d}.npz"
        if path.exists():
            continue
        start = time.process_time()
        recipe = engine.open_recipe("dcgan28", {**NETWORKS, **DATA, **changes, "train.batch_size": 16})
        store = prepare(recipe.data, data_dir)
        stream = Loader(store, 16, number, device, split(store.labels, 0.2).train)
        random = devices.rng_states(device, number)
        with devices.rng_scope(device, random):
            model = models.build(recipe, store.spec).to(device)
        trainer = Trainer(model, recipe.train, device)
        kept, losses, step, epoch = {}, [], 0, 0
        while step <= MOMENTS[-1]:
            epoch += 1
            for batch in stream.epoch(epoch):
                if step in MOMENTS:
                    model.eval()
                    with torch.no_grad():
                        made = model.sample(GeneratorInput(*(part.to(device) for part in model.prompt(range(FAKES)))))
                    model.train()
                    kept[str(step)] = to_uint8(made).numpy()
                    recent = losses[-50:] or [[0.0, 0.0]]
                    kept[f"losses-{step}"] = np.mean(recent, axis=0)
                with devices.rng_scope(device, trainer.rng_states):
                    logs = trainer.step(batch)
                losses.append([float(logs["generator/adversarial"]), float(logs["discriminator/adversarial"])])
                step += 1
                if step > MOMENTS[-1]:
                    break
        np.savez(path, **kept)
        print(f"{number:2d} {changes} {time.process_time() - start:.0f}s", flush=True)


class Gold(nn.Module):
    """Map eggs to 128 numbers that determine their variety, background, place, size, aspect and angle."""

    def __init__(self, kinds: int, backgrounds: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for inputs, outputs in ((3, 24), (24, 48), (48, 96), (96, 96)):
            layers += [nn.Conv2d(inputs, outputs, 3, 2, 1), nn.LeakyReLU(0.1)]
        self.body = nn.Sequential(*layers, nn.Flatten(), nn.Linear(96 * 16, 128))
        self.sizes = (kinds, backgrounds, 5)
        self.head = nn.Linear(128, sum(self.sizes))

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        return self.head(F.leaky_relu(self.body(images), 0.1)).split(self.sizes, 1)


def eggs(first: int, count: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Render eggs that are in no dataset: uint8 [N, 3, 64, 64], varieties, backgrounds, and five lengths [N, 5]."""
    images = np.stack([render("Egg", index, 64).transpose(2, 0, 1) for index in range(first, first + count)])
    true = [factors("Egg", index) for index in range(first, first + count)]
    lengths = [[one.x, one.y, one.size, one.aspect, one.angle] for one in true]
    kinds, backgrounds = (_numbered([getattr(one, name) for one in true]) for name in ("kind", "background"))
    return torch.from_numpy(images), kinds, backgrounds, torch.tensor(lengths)


def _numbered(names: list[str]) -> Tensor:
    known = sorted(set(names))
    return torch.tensor([known.index(name) for name in names])


def gold_features() -> Callable[[Tensor], Tensor]:
    """Return the features of the judge, which is trained first."""
    images, kinds, backgrounds, lengths = eggs(100_000, GOLD_IMAGES)
    lengths = (lengths - lengths.mean(0)) / lengths.std(0)
    torch.manual_seed(0)
    network = Gold(int(kinds.max()) + 1, int(backgrounds.max()) + 1)
    adam = torch.optim.Adam(network.parameters(), lr=1e-3)
    losses = []
    for _ in range(GOLD_STEPS):
        rows = torch.randint(len(images), (64,))
        kind, background, length = network(to_float(images[rows]) + 0.05 * torch.randn(64, 3, 64, 64))
        parts = (
            F.cross_entropy(kind, kinds[rows]),
            F.cross_entropy(background, backgrounds[rows]),
            F.mse_loss(length, lengths[rows]),
        )
        adam.zero_grad()
        sum(parts).backward()
        adam.step()
        losses.append([part.item() for part in parts])
    print("gold: last losses of variety, background, lengths:", np.mean(losses[-100:], axis=0).round(3))
    network.eval()

    @torch.no_grad()
    def features(images: Tensor) -> Tensor:
        return torch.cat([network.body(to_float(part)) for part in images.split(256)])

    return features


def scores(folder: Path, data_dir: Path) -> dict[str, list[float]]:
    """Score every set of images by every metric; lower is better in all of them."""
    recipe = engine.open_recipe("dcgan28", {**NETWORKS, **DATA})
    store = prepare(recipe.data, data_dir)
    judge = gold_features()
    fresh = judge(eggs(200_000, 4000)[0])
    rows = split(store.labels, 0.2)
    kinds = _numbered([factors("Egg", index).kind for index in range(len(store))])
    measures = {}
    for count in REFERENCES:
        chosen = rows._replace(train=rows.train[np.linspace(0, len(rows.train) - 1, count).astype(int)])
        reality = ReferenceSet.of(store, chosen)
        reality = replace(reality, classes=tuple(map(str, range(int(kinds.max()) + 1))))
        by_kind = learn_labels(
            torch.from_numpy(store.images[chosen.train]),
            kinds[chosen.train],
            torch.from_numpy(store.images[chosen.held_out]),
            kinds[chosen.held_out],
            int(kinds.max()) + 1,
        )
        extractors = {
            "rand": RandomFeatures.fit([to_float(reality.train)]),
            "texture": TextureFeatures(),
            "pretext": learn_views(reality.train, reality.held_out),
            "judge": by_kind,
        }
        measures[count] = (Evaluator(reality, extractors, FAKES), reality)
        print(f"N={count}: pretext {extractors['pretext'].accuracy:.2f}, judge of varieties {by_kind.accuracy:.2f}")
    table: dict[str, list[float]] = {}
    for file in sorted(folder.glob("*.npz")):
        kept = np.load(file)
        for moment in MOMENTS[1:]:
            fake = torch.from_numpy(kept[str(moment)])
            row = {"gold": distances.frechet_distance(fresh, judge(fake))}
            row |= dict(zip(("G loss", "D loss"), kept[f"losses-{moment}"].tolist(), strict=True))
            for count, (evaluator, reality) in measures.items():
                row |= {f"{name} {count}": value for name, value in _row(evaluator, reality, fake).items()}
            for name, value in row.items():
                table.setdefault(name, []).append(value)
    return table


def _row(evaluator: Evaluator, reality: ReferenceSet, fake: Tensor) -> dict[str, float]:
    found = evaluator.measure(fake).metrics
    real, made = evaluator.real["rand"], features(evaluator.extractors["rand"], fake)
    count = min(len(real), len(made))
    parts = {name: found[f"fd_{name}"] for name in evaluator.extractors}
    unlabelled = {name: value for name, value in parts.items() if name != "judge"}
    return {
        "fd without labels": combined(unlabelled),
        "fd with the varieties as labels": found["fd"],
        **{f"fd_{name}": value for name, value in parts.items()},
        "fd of gantool 0.1": (parts["rand"] * parts["pretext"]) ** 0.5,
        "equal weights": math.prod(unlabelled.values()) ** (1 / 3),
        "root mean square": (sum(value**2 for value in unlabelled.values()) / 3) ** 0.5,
        "kd_rand": distances.kernel_distance(real, made),
        "1-NN rand": found["nearest_neighbour"],
        "coverage rand": -found["coverage"],
        "density rand": -distances.density_coverage(real[:count], made[:count]).density,
    }


def report(table: dict[str, list[float]]) -> None:
    """Print how each metric ranks the sets compared with the judge, with 95 % intervals."""
    per, gold = len(MOMENTS) - 1, np.array(table["gold"])
    configurations = np.arange(len(gold)).reshape(-1, per)
    last = configurations[:, -1]
    random = np.random.default_rng(0)
    resampled = [random.choice(len(last), len(last)) for _ in range(1000)]
    print(f"\n{len(last)} configurations, {len(gold)} sets; gold from {gold.min():.1f} to {gold.max():.1f}")
    print("| metric | all sets, 95 % of resampled configurations | after the last step | gold of its choice / best |")
    print("|---|---|---|---|")
    for name, values in table.items():
        if name == "gold":
            continue
        scores = np.array(values)
        cells = []
        for rows in (configurations, last[:, None]):
            found = [spearmanr(scores[rows[some]].ravel(), gold[rows[some]].ravel()).statistic for some in resampled]
            low, high = np.nanpercentile(found, [2.5, 97.5])
            cells.append(
                f"{spearmanr(scores[rows].ravel(), gold[rows].ravel()).statistic:.2f} ({low:.2f} to {high:.2f})"
            )
        picked = gold[last][scores[last].argmin()] / gold[last].min()
        print(f"| {name} | {' | '.join(cells)} | {picked:.2f} |")


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="of the images; a repeated call makes only what is missing")
    parser.add_argument("--data-dir", type=Path, default=Path("data"))
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    generate(chosen.folder, chosen.data_dir, devices.choose("auto"))
    report(scores(chosen.folder, chosen.data_dir))


if __name__ == "__main__":
    main()
