"""How good a generator is, measured without touching its training."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from gantool.data.store import Store
from gantool.data.stream import Stream
from gantool.metrics.distances import frechet_distance
from gantool.metrics.features import RandomFeatures, identity

REAL = 5000  # real images that a measurement compares with, at the most
SEED = 20_240_805  # of the evaluation's own random numbers, the same in every run


class Evaluator:
    """Measures `fd`, the Fréchet distance on fixed random features, of generated images from the real ones.

    Real images, latents and labels are the same in every measurement, and drawn with a generator of its own: measuring
    never changes what a run does next.

    Args:
        store: the real images.
        count: images to generate.
        device: where features are computed.
    """

    def __init__(self, store: Store, count: int, device: torch.device) -> None:
        stream = Stream(store, 1, 0, device)
        generator = torch.Generator().manual_seed(SEED)
        rows = torch.randperm(len(store), generator=generator)[:REAL]
        rows = rows.repeat(2) if len(rows) == 1 else rows
        chunks = [stream.take(some.to(stream.images.device)).images for some in torch.split(rows, 512)]
        self.features = RandomFeatures.fit(chunks)
        self.real = torch.cat([self.features(chunk) for chunk in chunks])
        self.seeds = list(range(SEED, SEED + count))
        drawn = torch.randint(len(store), (count,), generator=generator)
        self.labels = torch.from_numpy(store.labels)[drawn].tolist()  # classes as often as among the real images
        self.about = {"extractor": identity(store.spec.channels), "real": len(rows), "fake": count}

    def __call__(self, sample: Callable[[list[int], list[int]], Tensor]) -> dict[str, float]:
        """Measure a generator.

        Args:
            sample: makes one image of each seed and label: [N, C, H, W], -1 to 1.

        Returns:
            the metrics by name.
        """
        fake = []
        for start in range(0, len(self.seeds), 256):
            chosen = slice(start, start + 256)
            images = sample(self.seeds[chosen], self.labels[chosen])
            # As `sample` writes them: 8 bits.
            fake.append(self.features(((images + 1) * 127.5 + 0.5).floor().clamp(0, 255) / 127.5 - 1))
        return {"fd": frechet_distance(self.real, torch.cat(fake))}
