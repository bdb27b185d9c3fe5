"""The checks of `gpu.py`: each gives a cell of its table, or raises what is wrong."""

from __future__ import annotations

import argparse
import contextlib
import functools
import itertools
import math
import os
import platform
import random
import re
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from copy import deepcopy
from importlib.util import find_spec
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from gantool import checkpoints, devices, models
from gantool.batches import Labeled, Paired, Unpaired
from gantool.data.sources.catalog import SOURCES
from gantool.inference.sampling import TrainedModel
from gantool.models import blocks
from gantool.recipe.load import dump
from gantool.runs import Run
from gantool.training import engine, loop, setup
from gantool.training.trainer import Trainer
from PIL import Image, ImageDraw, ImageFont
from torch.nn import functional
from torch.overrides import TorchFunctionMode

import small
import trained

SCRIPT = Path(__file__).with_name("gpu.py")
CPU = torch.device("cpu")
OFFLINE = {Paired: "egg_edges", Unpaired: "egg_colours"}  # what comes with gantool, in place of a download
DIGITS = 100  # drawn of each class
KILLED = ("dcgan14", "pix2pix", "lstm_sentiment")  # dropout and BatchNorm; pairs and noise; a recurrent network
EPOCHS = 20  # of a run that is killed
EXACT_STEPS, EXACT_BATCH, EXACT_SIDE = 20, 8, 64  # of the comparison in float64; larger images get small networks
EPSILON = 1e-4  # of Adam there: of a gradient that is rounding alone, as before a normalisation, its own makes steps
TOLERANCE = 1e-9  # of a number, as a share of the larger of its tensor's largest and the model's largest weight
LEVEL = 2 / 255  # one of 256 levels, on the scale of -1 to 1
SECONDS = 1.5  # of a measurement of speed, at least
HEADER = ("recipe", "steps", "float64", "kill, resume", "sampling", "images/s", "CPU's", "ratio")
COLUMNS = {
    "steps": "steps",
    "float64": "float64",
    "resume": "kill, resume",
    "sampling": "sampling",
    "speed": "images/s",
    "search": "steps",  # a sentence, in a row of its own
}


class WrongError(Exception):
    """What a check found wrong."""


def run(chosen: argparse.Namespace) -> int:
    """Run the checks and print their table; return the exit status."""
    start = time.monotonic()
    device = devices.choose(chosen.device)
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(chosen, device, Path(folder), start)
        rows = bench.rows()
    text = report(bench, rows, time.monotonic() - start)
    print(text)
    if chosen.out:
        chosen.out.write_text(text + "\n", encoding="utf-8")
    return 1 if bench.failures else 0


class Bench:
    """The checks of one device.

    Args:
        chosen: the options of the command line.
        device: what is checked.
        folder: an empty one for data and runs.
        start: when the script began.
    """

    def __init__(self, chosen, device, folder, start):
        self.chosen, self.device, self.folder = chosen, device, folder
        self.is_cpu = device.type == "cpu"
        self.data_dir = folder / "data"
        self.until = start + 60 * (chosen.minutes or (20 if self.is_cpu else 7.5))
        self.steps = chosen.steps or (20 if self.is_cpu else 200)
        self.names = sorted(chosen.recipes or small.RECIPES, key=lambda name: (side(name) > EXACT_SIDE, name))
        self.killed = [name for name in KILLED if name in self.names] or self.names[:1]
        self.failures, self.notes = [], []
        self.runs = {}

    def rows(self):
        """Run all checks; return the rows of the table, by column."""
        found = {name: {"recipe": f"`{name}`"} for name in self.names}
        for name in self.killed:  # first, as these are the checks of most promise
            self.fill(found[name], name, "resume", self.resumed)
        searches = self.searches()
        for name in self.names:
            for check, measure in (("steps", self.trained), ("float64", self.exact), ("sampling", self.sampled)):
                self.fill(found[name], name, check, measure)
            self.fill(found[name], name, "speed", self.timed)
        return [*found.values(), *searches]

    def fill(self, row, name, check, measure):
        """Run one check of one recipe, and put what it found into its row."""
        if check not in self.chosen.checks:
            return
        begun = time.monotonic()
        try:
            cells = self.in_time(measure, name)
        except Exception as error:  # whatever it is, it belongs into the table, and the other checks go on
            if not isinstance(error, WrongError):
                traceback.print_exc()
            self.failures.append(f"{name}, {check}: {first_line(error)}")
            cells = "**FAILED**"
        row.update({COLUMNS[check]: cells} if isinstance(cells, str) else cells)
        print(f"{name}: {check}: {row[COLUMNS[check]]} ({time.monotonic() - begun:.1f} s)", file=sys.stderr, flush=True)

    def in_time(self, measure, name):
        """Run a check if there is time left."""
        if time.monotonic() > self.until:
            raise WrongError("no time was left")
        return measure(name)

    def recipe(self, name, **changes):
        """Return a recipe that needs no download, measured by one extractor, at the first and the last epoch."""
        found = engine.open_recipe(name)
        kind = found.batch_type
        source = SOURCES.get(found.data.source)
        moved = {}
        if source is not None and source.needs:
            place = self.digits if kind is Labeled else OFFLINE[kind]
            moved = {"data.source": str(place), "data.classes": None}
        quick = {"train.extractors": ["rand"], "train.evaluate_images": 16, "train.keep_every": 0}
        return engine.change(engine.open_recipe(name, {**moved, **quick}), changes)

    @functools.cached_property
    def digits(self):
        """The folder of digits, drawn when it is first asked for."""
        digits(self.folder / "digits")
        return self.folder / "digits"

    def fitted(self, name):
        """Return a recipe as it is on a GPU, and with narrow networks on a CPU."""
        return self.narrow(name, 32) if self.is_cpu else self.recipe(name)

    def narrow(self, name, batch):
        """Return a recipe with narrow networks, small images and another size of batches."""
        return self.recipe(name, **small.small(name), **{"train.batch_size": batch})

    def store(self, recipe):
        return setup.data_of(recipe, self.data_dir)

    def trained(self, name):
        """Train by the recipe for the steps that are asked for; raises where anything is not finite."""
        recipe = self.fitted(name)
        length = len(stream(recipe, self.store(recipe), CPU))
        epochs = math.ceil(self.steps / length)
        each = {f"train.{key}": epochs for key in ("epochs", "evaluate_every", "checkpoint_every")}
        recipe = engine.change(recipe, each)
        made = Run.create(dump(recipe), name=name, out=self.folder / "runs" / name)
        for _ in engine.train(recipe, made, data_dir=self.data_dir, device=str(self.device)):
            pass
        bad = [key for entry in made.entries() for key, value in numbers(entry) if not math.isfinite(value)]
        if bad or len(made.entries()) != epochs:
            raise WrongError(f"{', '.join(bad[:3]) or 'the log'} is not finite or not whole")
        self.runs[name] = made
        return f"{epochs * length}"

    def exact(self, name):
        """Compare steps in float64 with the CPU's, each from the same state, batch and random numbers."""
        if self.device.type == "mps":
            return "no float64"
        batch = min(EXACT_BATCH, engine.open_recipe(name).train.batch_size)
        is_narrow = self.is_cpu or side(name) > EXACT_SIDE
        recipe = self.narrow(name, batch) if is_narrow else self.recipe(name, **{"train.batch_size": batch})
        store = self.store(recipe)
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            worst = compared(recipe, store, self.device)
        kernels = {re.split(r"\s", str(one.message))[0] for one in told if "deterministic" in str(one.message)}
        if kernels:
            self.notes.append(f"`{name}`: torch has no deterministic {', '.join(sorted(kernels))}.")
        if not worst <= TOLERANCE:
            raise WrongError(f"differs by {worst:.1e} after a step in float64")
        return f"{worst:.0e}" if worst else "0"

    def resumed(self, name):
        """Kill a process that trains, go on in a new one, and compare with one that nobody disturbed."""
        found = self.killed_and_resumed(name, "deterministic")
        if found:
            raise WrongError(f"resumed, {found} end otherwise than undisturbed")
        if not self.is_cpu and name == self.killed[0]:
            other = self.killed_and_resumed(name, "as trained") or "nothing"
            self.notes.append(f"`{name}`, killed and resumed with torch's usual kernels, differs in: {other}.")
        return "equal"

    def killed_and_resumed(self, name, way):
        """Return what differs between a run that was killed and resumed and one that was not; empty where nothing."""
        epochs = {"train.epochs": EPOCHS, "train.checkpoint_every": 1, "train.evaluate_every": EPOCHS // 2}
        recipe = engine.change(self.narrow(name, 64), epochs)
        self.store(recipe)  # so that two processes do not both render it
        whole, killed = (
            Run.create(dump(recipe), name=name, out=self.folder / way / name / kind) for kind in ("whole", "killed")
        )
        other = self.child(whole, way)
        process, told = self.child(killed, way), ""
        for line in process.stdout:
            told += line
            if line.strip() == "2":  # epochs, each with its checkpoint
                break
        time.sleep(random.uniform(0, 0.1))
        process.kill()
        process.communicate()
        if not 2 <= len(killed.entries()) < EPOCHS:
            raise WrongError(f"killed after {len(killed.entries())} epochs of {EPOCHS}: {told[-500:]}")
        for again in (self.child(killed, way), other):
            told = again.communicate()[0]
            if again.returncode:
                raise WrongError(f"a run ended with {again.returncode}: {told[-500:]}")
        states = [state(one) for one in (killed, whole)]
        return ", ".join(sorted(key for key in states[1] if not same(*(one.get(key) for one in states))))

    def child(self, own, way):
        """Start a process that trains a run, from its last checkpoint if it has one."""
        command = [sys.executable, str(SCRIPT), "--device", str(self.device), "--child", str(own.path)]
        command += [str(self.data_dir), way, *(["--wheels", str(self.chosen.wheels)] if self.chosen.wheels else [])]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def sampled(self, name):
        """Compare what the trained checkpoint makes, or answers, on the device and on the CPU."""
        if name not in self.runs:
            self.trained(name)
        own = self.runs[name]
        with as_on_a_gpu(self.device):
            found = made_by(TrainedModel(own, "last", str(self.device)), self.store)
        wanted = made_by(TrainedModel(own, "last", "cpu"), self.store)
        worst = float((found - wanted).abs().max())
        if not worst <= LEVEL:
            raise WrongError(f"differs by {worst / LEVEL:.2f} levels of 256")
        return f"{worst / LEVEL:.2g}"

    def timed(self, name):
        """Measure images per second of training, on the device and on the CPU."""
        recipe = self.fitted(name)
        own, cpu = (speed(recipe, self.store(recipe), device) for device in (self.device, CPU))
        return {"images/s": f"{own:,.0f}", "CPU's": f"{cpu:,.0f}", "ratio": f"{own / cpu:.1f}"}

    def searches(self):
        """Search, with Ray where it is there; return a row each."""
        if "search" not in self.chosen.checks:
            return []
        if not find_spec("optuna"):
            return [{"recipe": "search", "steps": "no Optuna"}]
        rows = [self.search("search, inline", "inline", {})]
        if not find_spec("ray"):
            return [*rows, {"recipe": "search, Ray", "steps": "no Ray"}]
        rows.append(self.search("search, Ray", "ray", {}))
        if self.device.type == "cuda":
            rows.append(self.search("search, Ray, `trials_per_gpu` 2", "ray", {"tune.trials_per_gpu": 2}))
        return rows

    def search(self, title, way, changes):
        row = {"recipe": title}
        short = {"tune.epochs": 1, "tune.trials": 4, "tune.confirm": None, "tune.finish": None}
        recipe = engine.change(self.narrow("gan14", 64), short)
        place = self.folder / f"{re.sub(r'[^a-z0-9]+', '-', title.lower())}.yaml"
        place.write_text(dump(engine.change(recipe, changes)), encoding="utf-8")

        def measure(_):
            kind = str(self.device)
            if way == "ray":  # whose workers know no mps, and choose their card
                kind = "cuda" if self.device.type == "cuda" else "cpu"
            command = [sys.executable, "-m", "gantool", "tune", str(place), "--engine", way, "--device", kind]
            command += ["--out", str(place.with_suffix("")), "--data-dir", str(self.data_dir)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode or not (place.with_suffix("") / "best.yaml").is_file():
                raise WrongError(f"ended with {done.returncode}: {done.stderr[-500:]}")
            told = next((line for line in done.stderr.splitlines() if "at once" in line), "4 trials")
            wanted = ["on each GPU", *(["trials_per_gpu 2"] if changes else ["a trial takes"])]
            missing = [part for part in wanted if part not in told]
            if way == "ray" and self.device.type == "cuda" and missing:
                raise WrongError(f"says {told!r}, without {missing[0]!r}")
            return told.strip()

        self.fill(row, title, "search", measure)
        return row


class DrawnOnCPU(TorchFunctionMode):
    """Draws random numbers on the CPU and moves them, so that every device gets the same ones."""

    def __torch_function__(self, function, types, arguments=(), keywords=None):
        keywords = dict(keywords or {})
        if function is functional.dropout:
            return dropped(*arguments, **keywords)
        if function in (torch.rand, torch.randn, torch.randint) and keywords.get("generator") is None:
            place = keywords.pop("device", None)
            drawn = function(*arguments, **keywords)
            return drawn if place is None else drawn.to(place)
        return function(*arguments, **keywords)


def dropped(activations, p=0.5, training=True, inplace=False):
    """Compute dropout by numbers that are drawn on the CPU."""
    if not training or not p:
        return activations
    kept = torch.rand(activations.shape, dtype=torch.float64) >= p
    return activations * kept.to(activations) / (1 - p)


def compared(recipe, store, device):
    """Return the largest difference after any of some steps in float64, each begun from the CPU's state.

    A GAN amplifies rounding: of differences of 1e-16 in each layer, 20 steps in a row of a small CycleGAN make 1e-6.
    Random numbers are drawn on the CPU for both.
    """
    with torch.random.fork_rng(devices=[]), mock.patch.object(blocks.FastDropout, "forward", torch.nn.Dropout.forward):
        torch.manual_seed(recipe.train.seed)
        one, other = (
            Trainer(models.build(recipe, store.spec).double().to(place), recipe.train, place) for place in (CPU, device)
        )
        for optimizer in (*one.optimizers.values(), *other.optimizers.values()):
            for group in optimizer.param_groups:
                group.update({"eps": EPSILON} if "eps" in group else {})
        before, worst = device_randomness(device), []
        for number, batch in enumerate(itertools.islice(forever(stream(recipe, store, CPU)), EXACT_STEPS)):
            other.load_state_dict(deepcopy(one.state_dict()))  # an optimizer keeps the tensors that it is given
            exact_step(one, batch, number)
            with deterministic(), as_on_a_gpu(device):
                exact_step(other, batch, number)
            worst.append(difference(numbers_of(other), numbers_of(one)))
    if before is not None and not torch.equal(before, device_randomness(device)):
        raise WrongError("draws random numbers on the device that this check does not know")
    return math.nan if any(map(math.isnan, worst)) else max(worst)


def exact_step(trainer, batch, seed):
    """Play a step in float64, on random numbers of a seed that are drawn on the CPU."""
    torch.manual_seed(seed)
    with DrawnOnCPU():
        trainer.step(type(batch)(*(exactly(part, trainer.device) for part in batch)))


def numbers_of(trainer):
    """Return all weights, buffers and running means of a trainer by name."""
    parts = [trainer.model, *([trainer.ema_generator] if trainer.ema_generator else [])]
    named = [(f"{index}.{name}", part) for index, own in enumerate(parts) for name, part in tensors(own)]
    return {name: part.detach().double().cpu() for name, part in named}


def tensors(module):
    return itertools.chain(module.named_parameters(), module.named_buffers())


def exactly(part, device):
    return part.to(device, torch.float64 if part.is_floating_point() else part.dtype)


def device_randomness(device):
    return torch.cuda.get_rng_state(device) if device.type == "cuda" else None


def difference(found, wanted):
    """Return the largest difference of any number, as a share of the larger of its tensor's and of all weights."""
    largest = max(float(part.abs().max()) for part in wanted.values() if part.dim() > 0 and part.numel())
    shares = [0.0]
    for name, part in wanted.items():
        if part.numel():
            scale = max(largest, float(part.abs().max()))
            shares.append(float((found[name] - part).abs().max()) / scale)
    return math.nan if any(math.isnan(share) for share in shares) else max(shares)


@contextlib.contextmanager
def deterministic():
    """Use deterministic kernels where torch has them, and warn where it has none."""
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


def as_on_a_gpu(device):
    """Compute transposed convolutions as on a GPU, where the CPU stands in for one: its own way is another."""
    return mock.patch.object(blocks, "FEW_CHANNELS", 0) if device.type == "cpu" else contextlib.nullcontext()


def train_alone(child, device):
    """Train a run to its end in this process, and print each epoch."""
    folder, data_dir, way = child
    torch.use_deterministic_algorithms(way == "deterministic", warn_only=True)
    loop.REPORT_SECONDS = 0.0  # a report after every step, so that a kill can come after any
    recipe = engine.open_recipe(str(Path(folder) / "recipe.yaml"))
    for report in engine.train(recipe, Run(Path(folder)), data_dir=Path(data_dir), device=device):
        if report.finished:
            print(report.epoch, flush=True)


def state(own):
    """Return all tensors of a run's last checkpoint by name, and its log without what a clock says."""
    content = checkpoints.load(own.checkpoints / "last.pt")
    return {"the log": trained.log(own), **trained.tensors({"trainer": content["trainer"]})}


def same(one, other):
    return torch.equal(one.cpu(), other.cpu()) if isinstance(one, torch.Tensor) else one == other


@torch.no_grad()
def made_by(own, store_of):
    """Return 16 images, or 16 answers on a scale of -1 to 1, of a trained model."""
    if not own.is_classifier:
        return own.sample(range(16))
    batch = next(iter(stream(own.recipe, store_of(own.recipe), CPU).epoch(1)))
    return 2 * own.answer(batch[0][:16]) - 1


def speed(recipe, store, device):
    """Measure images per second of training steps."""
    with torch.random.fork_rng(devices=[]):
        trainer = Trainer(models.build(recipe, store.spec).to(device), recipe.train, device)
        source = stream(recipe, store, device)
        batches = forever(source)
        for batch in itertools.islice(batches, 1 if device.type == "cpu" else 10):
            trainer.step(batch)
        wait_for(device)
        count, start = 0, time.perf_counter()
        while time.perf_counter() - start < SECONDS:
            for batch in itertools.islice(batches, 1 if device.type == "cpu" else 10):
                trainer.step(batch)
                count += len(batch[0])
            wait_for(device)
        return count / (time.perf_counter() - start)


def wait_for(device):
    if device.type != "cpu":
        getattr(torch, device.type).synchronize()


def stream(recipe, store, device):
    return loop.loader_of(recipe, store, device)


def forever(source):
    """Return the batches of one epoch after the other."""
    return itertools.chain.from_iterable(source.epoch(number) for number in itertools.count(1))


def digits(folder):
    """Draw digits of 28x28 pixels into a folder for each class, since real ones need a download or scikit-learn."""
    numbers = np.random.default_rng(0)
    for label in range(10):
        (folder / str(label)).mkdir(parents=True)
        for index in range(DIGITS):
            picture = Image.new("L", (28, 28))
            size, left, top, level = (int(numbers.integers(*ends)) for ends in ((16, 25), (4, 11), (0, 5), (160, 256)))
            ImageDraw.Draw(picture).text((left, top), str(label), fill=level, font=ImageFont.load_default(size))
            picture.save(folder / str(label) / f"{index}.png")


@functools.cache
def side(name):
    """Return the pixels on a side of a recipe's images; 0 of a table."""
    recipe = engine.open_recipe(name)
    return 0 if recipe.model.name in ("dense", "lstm") else recipe.data.height


def numbers(entry):
    return [(key, value) for key, value in entry.items() if isinstance(value, float)]


def first_line(error):
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def report(bench, rows, seconds):
    """Return the text of a whole check: what it ran on, what was found besides, what failed, and the table."""
    size = "narrow networks" if bench.is_cpu else "the recipes' own networks"
    found = f"{len(bench.failures)} FAILED" if bench.failures else "all passed"
    lines = [
        f"{name_of(bench.device)}; torch {torch.__version__}; Python {platform.python_version()}; "
        f"{os.cpu_count()} cores; {size}; {found}, in {seconds:.0f} s",
        "",
        "* steps: trained with all losses finite.",
        f"* float64: of {EXACT_STEPS} steps with deterministic kernels, each from the CPU's state, batch and random",
        "  numbers, the largest difference of a weight from the CPU's afterwards, as a share of the largest weight; "
        f"{TOLERANCE:.0e} is",
        f"  allowed. Adam's epsilon is {EPSILON:.0e}, so that rounding alone makes no steps.",
        "* kill, resume: killed by SIGKILL and resumed; equal if weights, optimizers and the log are those of a run",
        "  that nobody disturbed.",
        "* sampling: the largest difference of an image, or of an answer, from the CPU's, in levels of 256; 1 is",
        "  allowed.",
        "* images/s: of training, eager, in float32.",
        *(f"* {note}" for note in bench.notes),
        *(f"* FAILED: {failure}" for failure in bench.failures),
        "",
        f"| {' | '.join(HEADER)} |",
        "|---" * len(HEADER) + "|",
        *("| " + " | ".join(row.get(column, "") for column in HEADER) + " |" for row in rows),
    ]
    return "\n".join(lines)


def name_of(device):
    """Return the device's own name."""
    if device.type == "cuda":
        return (
            f"{torch.cuda.get_device_name(device)}, CUDA {torch.version.cuda}, cuDNN {torch.backends.cudnn.version()}"
        )
    if device.type == "mps":
        return f"{platform.machine()} GPU (mps)"
    with contextlib.suppress(OSError):
        found = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text(encoding="utf-8"))
        if found:
            return f"CPU {found[1]}"
    return f"CPU {platform.processor() or platform.machine()}"
