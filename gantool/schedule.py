"""Which epochs of a run are measured. They depend only on the recipe and the data, never on a clock.

So a recipe measures the same epochs on a slow and on a fast machine, and two equal runs keep the same best checkpoint.
The cost of a measurement beside the training is predicted for one processor core.
"""

from __future__ import annotations

from dataclasses import dataclass

MEASURED_PERCENT = (1, 2, 5, 10, 20, 35, 50, 75, 100)  # of the epochs; every run is measured there
MAX_MEASUREMENTS = 100  # of a run, unless `MEASURED_PERCENT` and `train.evaluate_every` ask for more
MEASURING_SHARE = 0.1  # of the training's seconds, for measurements besides those at `MEASURED_PERCENT`

# Predicted seconds of one core, fitted to the measured speed of six GANs. The steps of five are predicted to within a
# sixth. Those of `cgan_egg`, with 19 million weights, take 1.7 times as long, so that it is measured less often.
SECONDS_PER_MULTIPLICATION = 4.5e-11  # of the forward pass, including its share of the backward pass
SECONDS_PER_OUTPUT = 5e-9  # for a number that a layer writes, and that the backward pass reads and writes again
SECONDS_PER_STEP = 1e-4  # of training, whatever the size of the networks
GENERATION_SHARE = 1 / 3  # of the time of training on an image, for generating one without learning from it
SECONDS_PER_PIXEL = 6e-7  # of all extractors
LARGE_SIDE = 64  # pixels on a side from which extractors look at every fourth pixel only
SECONDS_OF_STATISTICS = 0.1  # for the distances between features
SECONDS_OF_COUNTS = 1e-3  # for the counts of right and wrong answers


@dataclass(frozen=True)
class Work:
    """Multiplications with weights, and numbers that layers write, in the forward passes for one training image."""

    multiplications: float
    outputs: float

    @property
    def seconds(self) -> float:
        """Predicted seconds of training on one image."""
        return SECONDS_PER_MULTIPLICATION * self.multiplications + SECONDS_PER_OUTPUT * self.outputs


def measured_epochs(epochs: int, allowed: int = 0, every: int | None = None) -> tuple[int, ...]:
    """Return the epochs that are measured: the first, those at `MEASURED_PERCENT` of the run, and evenly spaced ones.

    >>> measured_epochs(300)
    (1, 3, 6, 15, 30, 60, 105, 150, 225, 300)
    >>> measured_epochs(20, allowed=12)  # every third besides
    (1, 2, 3, 4, 6, 7, 9, 10, 12, 15, 18, 20)
    >>> measured_epochs(20, every=8)
    (1, 8, 16, 20)

    The spacing is the smallest that needs no more measurements than `allowed`. The spacing `every`, from
    `train.evaluate_every`, replaces both it and the percentages.
    """
    ends = {1, epochs}
    if every is not None:
        return tuple(sorted(ends | set(range(every, epochs + 1, every))))
    fixed = ends | {max(1, (share * epochs + 50) // 100) for share in MEASURED_PERCENT}
    for count in range(allowed, 0, -1):
        spacing = -(-epochs // count)
        found = fixed | set(range(spacing, epochs + 1, spacing))
        if len(found) <= allowed:
            return tuple(sorted(found))
    return tuple(sorted(fixed))


def trial_epochs(epochs: int) -> tuple[int, ...]:
    """Return the epochs at which a trial of a search is measured: the quarters, at which a pruner may stop it.

    >>> trial_epochs(20), trial_epochs(6), trial_epochs(1)
    ((5, 10, 15, 20), (2, 3, 5, 6), (1,))
    """
    return tuple(sorted({max(1, (quarter * epochs + 2) // 4) for quarter in range(1, 5)}))


def allowed(training: float, measurement: float) -> int:
    """Return how many measurements a run may have, by the predicted seconds of its training and of a measurement."""
    return min(MAX_MEASUREMENTS, int(MEASURING_SHARE * training / measurement))


def training_seconds(steps: int, images: int, work: Work) -> float:
    """Predict the seconds of so many training steps with so many images each."""
    return steps * (SECONDS_PER_STEP + images * work.seconds)


def measurement_seconds(images: int, pixels: tuple[int, int] | None, work: Work) -> float:
    """Predict the seconds of measuring generated images of this height and width, or a classifier if that is None."""
    seconds = images * GENERATION_SHARE * work.seconds
    if pixels is None:
        return SECONDS_OF_COUNTS + seconds
    height, width = pixels
    part = 4 if min(pixels) >= LARGE_SIDE else 1
    return SECONDS_OF_STATISTICS + seconds + images * SECONDS_PER_PIXEL * height * width / part
