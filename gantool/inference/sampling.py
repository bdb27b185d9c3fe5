"""A trained model: images by seed and class, translations, answers, and walks through latent space."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gantool import devices, models
from gantool.checkpoints import ANOTHER, printable
from gantool.data.loader import Dataset
from gantool.errors import CheckpointError, RunError, unknown
from gantool.files import is_file
from gantool.metrics.evaluate import SampleRequest, prompt_of
from gantool.models import KINDS, shapes
from gantool.models.base import Classifier, Generative, GeneratorInput, LatentModel
from gantool.recipe import load as recipes
from gantool.runs import Run
from gantool.training.setup import check_same_data, data_of
from gantool.training.state import Checkpoint, read

BATCH = 64


class TrainedModel:
    """A trained model.

    A generator of images from noise computes in double precision. So a seed gives the same image in any batch and on
    any device, after rounding. Translations are made one by one, in float32.

    Args:
        run: the run.
        checkpoint: `best`, `last`, or the number of an epoch that was kept.
        device: see `devices.choose`.
    """

    def __init__(self, run: Run, checkpoint: str = "best", device: str = "auto") -> None:
        self.device = devices.choose(device)
        self.run, self.file = run, _file(run, checkpoint)
        saved = read(self.file)
        self.recipe, self.data, self.epoch, self.trained_on = saved.recipe, saved.spec, saved.epoch, saved.data
        self.examples: Mapping[str, Any] | None = saved.examples
        _check_fit(run, saved, self.file)
        with torch.random.fork_rng(devices=[]):  # keeps the caller's random numbers
            model = models.build(self.recipe, self.data)
        model.load_state_dict(saved.model)
        exact = isinstance(model, LatentModel)
        if exact and self.device.type == "mps":
            self.device = torch.device("cpu")  # MPS has no double precision
        self.dtype = torch.float64 if exact else torch.float32
        self.model = model.to(self.device, self.dtype).eval()

    @property
    def name(self) -> str:
        """Name of the model, as recipes have it."""
        return self.recipe.model.name

    @property
    def is_classifier(self) -> bool:
        """Whether the model is a classifier."""
        return isinstance(self.model, Classifier)

    @property
    def generator(self) -> Generative:
        """The model, if it makes images.

        Raises:
            RunError: it does not.
        """
        if not isinstance(self.model, Generative):
            raise RunError(f"{self.file.parent.parent}: {self.name} answers, and makes no images; use gantool sample")
        return self.model

    def dataset(self, data_dir: Path) -> Dataset:
        """Return the data that the model was trained on, from where the recipe of its run has them now.

        Raises:
            DataError: they have changed since.
        """
        own = recipes.load(str(self.run.path / "recipe.yaml"), {}, KINDS)
        store = data_of(own, data_dir)
        check_same_data(
            self.trained_on, self.file, store, "measure against a folder with gantool score RUN --against FOLDER"
        )
        return store

    @property
    def shown(self) -> SampleRequest | None:
        """The example translations of the run, with their sources; None if images are made from noise."""
        if self.examples is None or not isinstance(self.model, Generative):
            return None
        return SampleRequest(**self.examples)

    def sample(self, seeds: Sequence[int], class_name: str | None = None) -> Tensor:
        """Make one image for each seed.

        Args:
            seeds: whole numbers, 0 or more. For a translator they number the examples of the run.
            class_name: the class of all images; without it the classes take turns.

        Returns:
            [N, C, H, W], float32, -1 to 1, on the CPU.

        Raises:
            RunError: there is no such class, or the model makes no images.
        """
        model, request = self.generator, self.request(seeds, class_name)
        if request is not None:
            return self.images(request)
        assert isinstance(model, LatentModel)
        return self.render(model.prompt(seeds, None if class_name is None else [self.label(class_name)] * len(seeds)))

    def request(self, seeds: Sequence[int], class_name: str | None = None) -> SampleRequest | None:
        """Return the example translations with these numbers; None if images are made from noise."""
        shown = self.shown
        if shown is None:
            return None
        label = None if class_name is None else self.label(class_name)
        rows = [row for row, own in enumerate(shown.labels) if label in (None, own)]
        if not rows:
            raise RunError(f"--class {class_name}: the run keeps no image to make it from; name one with --input")
        return shown.rows([rows[seed % len(rows)] for seed in seeds])

    def images(self, request: SampleRequest) -> Tensor:
        """Make the requested images: [N, C, H, W], float32, -1 to 1, on the CPU."""
        return self.render(prompt_of(self.generator, request))

    def label(self, class_name: str) -> int:
        """Return the index of a class by its name."""
        if not self.generator.conditional:
            raise RunError(
                f"--class {class_name}: {self.name} has no classes; leave it out; "
                "a conditional model has some, such as cgan_egg"
            )
        if class_name not in self.data.classes:
            raise RunError(f"--class {class_name}: " + unknown("class", class_name, self.data.classes))
        return self.data.classes.index(class_name)

    def walk(self, seeds: Sequence[int], frames: int, class_name: str | None = None) -> Iterator[Tensor]:
        """Walk through latent space from seed to seed and back to the first, so that it loops.

        The way between two latents is a great circle (spherical interpolation; White 2016, arXiv:1609.04468). A
        straight line would pass short latents, which the generator has never seen.

        Args:
            seeds: the latents that the walk passes.
            frames: images from one seed to the next.
            class_name: the class of all images; without it the first one.

        Yields:
            one image at a time, [1, C, H, W], -1 to 1.

        Raises:
            RunError: the model has no latents.
        """
        model = self.generator
        if not isinstance(model, LatentModel):
            raise RunError(f"--walk: {self.name} makes images from images, and has no latents to walk through")
        label = 0 if class_name is None else self.label(class_name)
        latents = model.prompt(seeds).source.double()
        for index in range(len(seeds)):
            start, end = latents[index], latents[(index + 1) % len(seeds)]
            for frame in range(frames):
                between = slerp(start, end, frame / frames)
                yield self.render(GeneratorInput(between[None], torch.tensor([label]), torch.tensor([0])))

    @torch.no_grad()
    def render(self, prompt: GeneratorInput) -> Tensor:
        """Make one image for each row of a prompt: [N, C, H, W], float32, -1 to 1, on the CPU."""
        source, labels, seeds = (part.to(self.device) for part in prompt)
        count = BATCH if isinstance(self.model, LatentModel) else 1
        chunks = (slice(start, start + count) for start in range(0, len(source), count))
        with devices.full_precision():
            parts = [
                self.generator.sample(GeneratorInput(source[chunk].to(self.dtype), labels[chunk], seeds[chunk]))
                for chunk in chunks
            ]
        return torch.cat(parts).float().cpu()

    @torch.no_grad()
    def answer(self, inputs: Tensor) -> Tensor:
        """Return the probability of each class for inputs as the model takes them: [N, classes], on the CPU.

        Raises:
            RunError: the model makes images.
        """
        if not isinstance(self.model, Classifier):
            raise RunError(f"{self.file.parent.parent}: {self.name} makes images, and answers nothing")
        with devices.full_precision():
            return torch.cat([self.model.answer(part.to(self.device)).cpu() for part in torch.split(inputs, BATCH)])


def _check_fit(run: Run, saved: Checkpoint, file: Path) -> None:
    """Check that the networks of a checkpoint's recipe fit together. Those of the run's own did when it was trained."""
    own = run.path / "recipe.yaml"
    with contextlib.suppress(OSError):
        if is_file(own) and own.read_bytes() == saved.recipe_text.encode(errors="replace"):
            return
    try:
        shapes.trace(lambda: models.build(saved.recipe, saved.spec))
    except Exception as error:  # layers that do not fit can raise anything
        raise CheckpointError(
            f"{file}: its networks do not fit together ({printable(str(error))}); {ANOTHER}"
        ) from None


def slerp(start: Tensor, end: Tensor, share: float) -> Tensor:
    """Return the point at `share` (0 to 1) of the great circle from one vector to another; lengths change evenly."""
    cosine = torch.dot(start, end) / (start.norm() * end.norm())
    angle = math.acos(float(cosine.clamp(-1, 1)))
    if math.sin(angle) < 1e-6:
        return torch.lerp(start, end, share)
    return (math.sin((1 - share) * angle) * start + math.sin(share * angle) * end) / math.sin(angle)


def _by_epoch(folder: Path, ending: str) -> dict[int, Path]:
    """Return the files of a folder that are called `epoch-<number>`, by number and in its order."""
    files = [path for path in folder.glob(f"epoch-*{ending}") if path.stem[6:].isdecimal()]
    return {int(path.stem[6:]): path for path in sorted(files, key=lambda path: int(path.stem[6:]))}


def _file(run: Run, checkpoint: str) -> Path:
    folder = run.checkpoints
    kept = _by_epoch(folder, ".pt")
    if checkpoint.isdecimal():
        path = folder / f"epoch-{int(checkpoint):04d}.pt"
    elif checkpoint in {"best", "last"}:
        path = folder / f"{checkpoint}.pt"
        if checkpoint == "last" and not path.exists() and (folder / "previous.pt").exists():
            path = folder / "previous.pt"
    else:
        raise RunError(f"--checkpoint {checkpoint}: expected best, last or the number of an epoch")
    if not path.exists():
        there = ", ".join([*(name for name in ("best", "last") if (folder / f"{name}.pt").exists()), *map(str, kept)])
        # The first epoch's end is the first measurement, and with it the first best.
        young = (
            f"; --checkpoint last, or train it further: gantool train {run.path} --resume" if there == "last" else ""
        )
        raise CheckpointError(
            f"{run.path}: no checkpoint {checkpoint!r}; there {'are: ' + there if there else 'is none'}"
            + ("; train.keep_every keeps more" if checkpoint.isdecimal() else young)
        )
    return path
