"""A run as an animation: its training, or a walk through its latent space."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path

from PIL import Image

from gantool import images
from gantool.errors import CheckpointError, RunError
from gantool.inference import animation
from gantool.inference.sampling import TrainedModel, _by_epoch
from gantool.runs import Run

logger = logging.getLogger(__name__)

MAX_FRAMES = 200  # of an animation of training; long runs are thinned out evenly


def animate_training(run: Run, path: Path) -> int:
    """Animate the grids of a run, each with its epoch. Return the number of frames.

    Raises:
        RunError: the run has no grids yet.
    """
    files = list(_by_epoch(run.samples, ".png").values())
    if not files:
        raise RunError(f"{run.path}: no grids yet; train it first: gantool train {run.path} --resume")
    if len(files) > MAX_FRAMES:
        files = [files[round(index * (len(files) - 1) / (MAX_FRAMES - 1))] for index in range(MAX_FRAMES)]

    drawn: set[Path] = set()

    def frames() -> Iterator[Image.Image]:
        for file in [*files, *files[-1:] * (len(files) // 5)]:  # the last frame stays for a moment
            grid = _grid(file)
            if grid is not None:
                drawn.add(file)
                yield images.caption(grid, f"epoch {int(file.stem[6:])}")
        if not drawn:
            raise CheckpointError(f"{run.samples}: none of its {len(files)} grids can be read as an image")

    animation.animate(frames(), path, seconds_per_frame=min(0.5, max(0.05, 8 / len(files))))
    return len(drawn)


def _grid(file: Path) -> Image.Image | None:
    """Return a grid, or None with a warning if the file is damaged."""
    try:
        with Image.open(file) as grid:
            return grid.convert(grid.mode)
    except Exception:  # Pillow raises many kinds for a damaged file
        logger.warning(f"{file}: cannot be read as an image; it is left out")
        return None


def animate_walk(
    run: Run, path: Path, seeds: Sequence[int], frames: int, class_name: str | None, checkpoint: str
) -> int:
    """Animate a walk through latent space from seed to seed. Return the number of frames."""
    trained = TrainedModel(run, checkpoint)
    scale = max(1, round(256 / trained.generator.data.width))
    text = f"epoch {trained.epoch}" + (f", {class_name}" if class_name else "")
    samples = (
        images.caption(images.grid(entry, padding=0, scale=scale), text)
        for entry in trained.walk(seeds, frames, class_name)
    )
    animation.animate(samples, path, seconds_per_frame=0.06)
    return len(seeds) * frames
