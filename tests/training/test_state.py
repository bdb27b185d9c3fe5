"""Checkpoints that deviate in any part are refused in one line, before anything of them is used."""

from __future__ import annotations

import functools
import io
import math
import os
import shutil
import subprocess
import sys
import tarfile
import textwrap
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from gantool import checkpoints, models
from gantool.errors import CheckpointError
from gantool.inference.sampling import TrainedModel
from gantool.recipe import load as recipes
from gantool.recipe.load import dump
from gantool.runs import Run
from gantool.training import engine, loop, state
from gantool.training.state import read

from old import as_old, save_old
from refusals import refusal
from small import offline, small
from trained import assert_same_end, run_in, same, tensors, train

OLD = Path(__file__).parents[1] / "files" / "checkpoints-1.tar.gz"
QUICK = {"train.epochs": 2, "train.batch_size": 16}
GENERATIVE = {"train.evaluate_images": 16, "train.extractors": ["rand"]}
TINY = {"data.size": 8, "model.latent_dim": 4, "model.generator": [8], "model.discriminator": [8], "train.ema": 0.9}
RECIPES = {
    "gan14": GENERATIVE | TINY,  # latents, running means and Adam
    "cyclegan": GENERATIVE,  # translations without targets, and a history of images
    "pix2pix": GENERATIVE,  # translations with targets
    "mlp_xor": {},  # rows of a table, and sgd
    "lstm_sentiment": {},  # sentences
    "cnn_fashion16": {},  # images that are classified
}
OPEN = ("metric", "position.sums")  # mappings that may hold fewer entries


@pytest.fixture(scope="module")
def saved(tmp_path_factory, data_dir):
    """Return a run that was stopped within its second epoch, made once for each recipe."""
    known = {}

    def of(name):
        if name not in known:
            changes = small(name, **offline(name), **QUICK, **RECIPES[name])
            recipe = engine.open_recipe(name, changes)
            known[name] = run_in(tmp_path_factory.mktemp(name) / "run", recipe)
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(loop, "REPORT_SECONDS", 0.0)  # a report after every step
                reports = engine.train(recipe, known[name], data_dir=data_dir, device="cpu")
                while (report := next(reports)).epoch < 2 or report.finished:
                    pass
                reports.close()
        return known[name]

    return of


def places(state, place=()):
    """Yield the keys that lead to every value, mappings included, and the value."""
    for key, value in state.items():
        yield (*place, key), value
        if isinstance(value, dict):
            yield from places(value, (*place, key))


def changed(state, place, change):
    """Return the state with `change` applied to a copy of the mapping that `place` leads to."""
    if not place:
        copy = dict(state)
        change(copy)
        return copy
    return {**state, place[0]: changed(state[place[0]], place[1:], change)}


def other_values(value):
    """Yield values that may never stand in place of one: of another type, and out of its range."""
    yield from (object_ for object_ in ("text", {"x": [1]}, [[None]], True) if type(object_) is not type(value))
    if isinstance(value, torch.Tensor):
        yield from (value[None], value.to(torch.complex64), value[None].sum(0, dtype=torch.double), value.flatten()[:0])
        yield value.int() if value.is_floating_point() else value.double()
        if value.is_floating_point():
            yield from (torch.full_like(value, math.nan), torch.full_like(value, -math.inf))
        elif value.dtype != torch.uint8:
            yield torch.full_like(value, -1)
    elif isinstance(value, str):
        yield 7
    elif isinstance(value, list):
        yield from ([*value, "\x1b]0;\n"], [*value, -1], [*value, math.nan])
    elif type(value) in (int, float):
        yield from (-1, -math.inf, str(value), [value])
    if type(value) is int:
        yield from (1.5, float(value), 10**400)


def forgeries(state, inside=()):
    """Yield what was done to every part of a state, and the forged state."""
    for place, value in places(state):
        if place[: len(inside)] != inside:
            continue
        *parents, key = place
        name = ".".join(place)
        if ".".join(parents) not in OPEN:
            yield f"without {name}", changed(state, parents, lambda at, key=key: at.pop(key))
        if isinstance(value, dict):
            for extra in ({"x": [1]}, torch.ones(1), "text"):
                yield f"more in {name}", changed(state, place, lambda at, extra=extra: at.update({"x\ny": extra}))
        for other in other_values(value):
            yield (
                f"{name} = {other!r}"[:200],
                changed(state, parents, lambda at, key=key, other=other: at.update({key: other})),
            )


@pytest.fixture
def quick(monkeypatch):
    """Parse each recipe once, which is most of the time of a check, and do not wait for the disk."""
    parse = functools.cache(lambda text: recipes.parse(text, "recipe", models.KINDS))
    monkeypatch.setattr(state, "recipes", SimpleNamespace(parse=lambda text, *_: parse(text)))
    monkeypatch.setattr(os, "fsync", lambda file: None)


def accepted(forged, path):
    """Return the forgeries that are not refused in one line with exit code 5."""
    found = []
    for name, content in forged:
        checkpoints.save(path, content)
        try:
            read(path)
            found.append(name)
        except CheckpointError as error:
            if error.exit_code != 5 or not str(error).isprintable():
                found.append(f"{name}: {error}")
    return found


@pytest.mark.parametrize("which", ["last", "best"])
def test_every_part_of_a_checkpoint_that_is_forged_in_any_way_is_refused(which, saved, quick, tmp_path):
    forged = list(forgeries(checkpoints.load(saved("gan14").checkpoints / f"{which}.pt")))
    assert len(forged) > (1000 if which == "last" else 100)
    assert accepted(forged, tmp_path / "forged.pt") == []


@pytest.mark.parametrize(
    ("name", "which", "inside"),
    [
        ("cyclegan", "best", "examples"),
        ("cyclegan", "last", "trainer.stateful_children"),
        ("pix2pix", "best", "examples"),
        ("cnn_fashion16", "best", "examples"),
        ("mlp_xor", "best", "spec"),
        ("mlp_xor", "last", "trainer.optimizers"),
        ("lstm_sentiment", "best", "spec"),
        ("lstm_sentiment", "best", "examples"),
    ],
)
def test_what_only_other_models_have_is_checked_too(name, which, inside, saved, quick, tmp_path):
    content = checkpoints.load(saved(name).checkpoints / f"{which}.pt")
    assert accepted(forgeries(content, tuple(inside.split("."))), tmp_path / "forged.pt") == []


@pytest.mark.slow
def test_a_check_loads_no_compiler_which_would_take_a_second(saved):
    files = [str(saved(name).checkpoints / f"{which}.pt") for name in RECIPES for which in ("best", "last")]
    script = """
        import sys
        from pathlib import Path
        from gantool.training.state import read

        for name in sys.argv[1:]:
            read(Path(name))
        sys.exit(" ".join({"torch._dynamo", "sympy"} & sys.modules.keys()) or None)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script), *files], capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")


def set_to(place, value):
    """Return a change of a checkpoint."""
    *parents, key = place.split(".")
    return lambda content: changed(content, parents, lambda at: at.update({key: value}))


def in_recipe(old, new):
    return lambda content: {**content, "recipe": content["recipe"].replace(old, new)}


AGAIN = "; use another checkpoint of the run"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (set_to("epoch", 7), "epoch is 7, but position.epoch 2"),
        (set_to("metric", {"error": 0.5}), "metric is not fd, as its recipe has it"),
        (set_to("data.digest", "0" * 63), "data.digest is wrong (string should match pattern '^([0-9a-f]{64})?$')"),
        (set_to("threads", 4096), "threads is wrong (input should be less than or equal to 1024)"),
        (set_to("examples", {}), "examples do not fit the model of its recipe"),
        (set_to("spec", {"words": ["a"], "length": 3}), "its recipe is of other data than its spec"),
        (set_to("spec.height", 9), "its recipe is of other data than its spec"),
        (set_to("classes", ["3", "4", "5"]), "its recipe is of other data than its spec"),
        (set_to("position.wrong\nkey", 1), "position.wrong\\nkey is wrong (unexpected keyword argument)"),
        (
            set_to("trainer.rng_states.cpu", torch.zeros(5056, dtype=torch.uint8)),
            "trainer.rng_states.cpu is no state of",
        ),
        (set_to("trainer.rng_states.cpu", torch.zeros(16, dtype=torch.uint8)), "trainer.rng_states.cpu is no state of"),
        (set_to("trainer.rng_states", {}), "trainer.rng_states.cpu is missing"),
        (set_to("trainer.ema_generator", None), "trainer.ema_generator does not fit train.ema of its recipe"),
        (set_to("health.states", {}), "health.states are not those of the diagnoses"),
        (in_recipe("name: mlp", "name: mpl"), "recipe:3: model.name: unknown model 'mpl'; did you mean 'mlp'?"),
        (
            in_recipe("generator: [8]", "generator: [8, 9, x, y]"),
            "recipe:5: model.generator.2: expected a whole number",
        ),
        (in_recipe("epochs: 2", "epochs: {"), "recipe:"),
    ],
)
def test_parts_that_do_not_fit_each_other_are_named(change, message, saved, tmp_path):
    checkpoints.save(tmp_path / "a.pt", change(checkpoints.load(saved("gan14").checkpoints / "last.pt")))
    found = refusal(read, tmp_path / "a.pt", code=5)
    assert found.startswith(f"{tmp_path / 'a.pt'}: {message}")
    assert found.endswith(AGAIN)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("lstm_sentiment", set_to("examples.labels", torch.full((8,), 2)), "examples.labels reach beyond 1"),
        ("lstm_sentiment", set_to("classes", ["good"]), "its recipe makes no networks for its data"),
        ("cyclegan", set_to("classes", ["one"]), "its recipe is of other data than its spec"),
        ("cyclegan", set_to("examples.labels", [0] * 7 + [2]), "examples.labels reach beyond 1"),
    ],
)
def test_examples_and_classes_that_a_model_cannot_have_are_named(name, change, message, saved, tmp_path):
    checkpoints.save(tmp_path / "a.pt", change(checkpoints.load(saved(name).checkpoints / "best.pt")))
    assert refusal(read, tmp_path / "a.pt", code=5) == f"{tmp_path / 'a.pt'}: {message}{AGAIN}"


def test_a_small_file_that_asks_for_a_large_model_is_refused_before_one_is_made(saved, tmp_path, monkeypatch):
    content = checkpoints.load(saved("gan14").checkpoints / "best.pt")
    content["recipe"] = content["recipe"].replace("size: 8", "size: 2500")
    content["spec"] |= {"height": 2500, "width": 2500}
    checkpoints.save(tmp_path / "a.pt", content)
    made = []

    def build(recipe, data, build=models.build):
        made.append(build(recipe, data))
        return made[-1]

    monkeypatch.setattr(models, "build", build)
    message = r"generator.2.weight is \[64, 8\], but the recipe makes it \[6250000, 8\]"
    with pytest.raises(CheckpointError, match=message):
        TrainedModel(run_with(saved("gan14"), tmp_path / "run", tmp_path / "a.pt"), device="cpu")
    assert [weight.device.type for model in made for weight in model.parameters()] == ["meta"] * 8


def run_with(run, path, checkpoint):
    """Return a copy of a run that has this file as its checkpoints."""
    copy = Run(Path(shutil.copytree(run.path, path)))
    for name in ("best", "last", "previous"):
        shutil.copy(checkpoint, copy.checkpoints / f"{name}.pt")
    return copy


def test_networks_that_do_not_fit_together_are_refused_before_they_are_used(data_dir, tmp_path):
    recipe = engine.open_recipe("dcgan14", small("dcgan14", **offline("dcgan14"), **QUICK, **GENERATIVE))
    run = run_in(tmp_path / "run", recipe)
    train(recipe, run, data_dir)
    content = checkpoints.load(run.checkpoints / "best.pt")
    first = recipe.model.discriminator[0]
    content["recipe"] = dump(engine.change(recipe, {"model.discriminator.0": [*first[:2], first[2] + 2, first[3]]}))
    checkpoints.save(run.checkpoints / "best.pt", content)
    message = refusal(lambda: TrainedModel(run, device="cpu"), code=5)
    assert message.startswith(f"{run.checkpoints / 'best.pt'}: its networks do not fit together (")


# --- files of version 0.1 ------------------------------------------------------------------------------------


@pytest.fixture
def old_run(tmp_path):
    """A run whose files are of version 1, stopped at the end of the second epoch of three."""
    with tarfile.open(OLD) as file:
        file.extractall(tmp_path, filter="data")
    return Run(tmp_path / "run")


def test_a_run_with_files_of_version_1_resumes_bit_for_bit(old_run, tmp_path, data_dir):
    last = old_run.checkpoints / "last.pt"
    assert last.read_bytes().startswith(b"gantool checkpoint 1\n")
    before = torch.load(io.BytesIO(last.read_bytes()[86:]), weights_only=True)
    found = read(last).resumable
    assert same(tensors({"": before["trainer"]["model"]}), tensors({"": found.trainer.model}))
    assert same(before["trainer"]["average"], found.trainer.ema_generator)
    assert torch.equal(before["trainer"]["randomness"]["cpu"], found.trainer.rng_states["cpu"])
    assert {name: vars(found.position)[name] for name in before["position"]} == before["position"]

    rewritten = Run(Path(shutil.copytree(old_run.path, tmp_path / "rewritten")))
    for name in ("last", "best"):
        content = checkpoints.load(rewritten.checkpoints / f"{name}.pt", state._upgraded)
        checkpoints.save(rewritten.checkpoints / f"{name}.pt", content)
    recipe = engine.open_recipe(str(old_run.path))
    for run in (old_run, rewritten):
        train(recipe, run, data_dir)
        assert (run.checkpoints / "last.pt").read_bytes().startswith(b"gantool checkpoint 2\n")
    assert_same_end(old_run, rewritten)


@pytest.mark.parametrize("name", RECIPES)
def test_a_file_of_version_1_holds_the_same_as_todays(name, saved, tmp_path):
    for which in ("last", "best"):
        content = checkpoints.load(saved(name).checkpoints / f"{which}.pt")
        save_old(tmp_path / "old.pt", as_old(content))
        upgraded = checkpoints.load(tmp_path / "old.pt", state._upgraded)
        assert same(tensors(upgraded), tensors(content))
        read(tmp_path / "old.pt")


@pytest.mark.parametrize("place", ["trainer", "trainer.optimizers", "trainer.optimizers.generator", "position"])
@pytest.mark.parametrize("value", [None, 3, [], {"x": [1]}, {1: 2}])
def test_forged_files_of_version_1_are_refused_too(place, value, saved, tmp_path):
    content = as_old(checkpoints.load(saved("gan14").checkpoints / "last.pt"))
    save_old(tmp_path / "old.pt", set_to(place, value)(content))
    refusal(read, tmp_path / "old.pt", code=5)
    save_old(tmp_path / "old.pt", value)
    refusal(read, tmp_path / "old.pt", code=5)


def test_weights_of_version_1_that_claim_a_terabyte_are_refused_by_their_shape(old_run, data_dir):
    best = old_run.checkpoints / "best.pt"
    content = torch.load(io.BytesIO(best.read_bytes()[86:]), weights_only=True)
    content["model"]["generator.0.weight"] = torch.ones(1).expand(10**6, 10**6)
    save_old(best, content)
    message = f"{best}: of another model: generator.0.weight is [1000000, 1000000], but the recipe makes it [8, 4]"
    assert refusal(lambda: TrainedModel(old_run, device="cpu"), code=5) == message
