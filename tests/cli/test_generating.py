"""`gantool sample` and `gantool animate` on a run of two epochs."""

from __future__ import annotations

import math
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from gantool import checkpoints
from gantool.runs import Run
from PIL import Image

from commands import code, sets


def test_a_grid_of_samples_is_written(command, inside, trained):
    result, out, _ = command("sample", trained, "--seeds", "0-8", "-o", "deep/grid.png")

    assert result == 0
    assert re.fullmatch(r"deep.grid.png: 9 images of epoch [12]\n", out)
    with Image.open("deep/grid.png") as grid:
        assert grid.mode == "L"
        assert grid.width == grid.height == 2 + 3 * (8 * 7 + 2)


def test_a_folder_of_samples_has_a_image_a_seed(command, inside, trained):
    result, out, _ = command("sample", trained, "--seeds", "7,100-101", "-o", "images")

    assert result == 0
    assert re.fullmatch(r"images.: 3 images of epoch [12]\n", out)
    files = ["seed-000007.png", "seed-000100.png", "seed-000101.png"]
    assert sorted(path.name for path in Path("images").iterdir()) == files
    with Image.open("images/seed-000007.png") as picture:
        assert picture.size == (8, 8)


def test_a_seed_is_the_same_image_in_any_batch(command, inside, trained):
    for seeds, folder in (("3", "one"), ("0-70", "many")):
        assert command("sample", trained, "--seeds", seeds, "-o", folder)[0] == 0

    pictures = [np.asarray(Image.open(Path(folder) / "seed-000003.png")) for folder in ("one", "many")]
    assert np.array_equal(*pictures)


def test_without_a_name_samples_go_into_the_run(command, inside):
    assert code("train", "gan14", *sets(train__epochs=1)) == 0

    result, out, _ = command("sample", "--seeds", "0-3")
    again = command("sample", "--seeds", "0-3")[0]

    assert (result, again) == (0, 0)  # what gantool named itself, it may write again
    assert out == f"{Path('runs/gan14-001/sample-0-3.png')}: 4 images of epoch 1\n"


def test_a_class_is_refused_by_a_model_that_is_not_told_classes(command, inside, trained):
    result, _, err = command("sample", trained, "--class", "3", "-o", "x.png")
    assert (result, Path("x.png").exists()) == (2, False)
    assert err == "error: --class 3: mlp has no classes; leave it out; a conditional model has some, such as cgan_egg\n"


def test_without_a_name_an_unfinished_study_is_not_taken_for_the_newest_run(command, inside, trained):
    Path("runs/gan14-001").parent.mkdir()
    shutil.copytree(trained, "runs/gan14-001")
    shutil.copytree(trained, "runs/gan14-002")
    Path("runs/gan14-002/study.json").write_text("{}")
    result, out, _ = command("sample", "--seeds", "0")
    assert (result, out.startswith(str(Path("runs/gan14-001")))) == (0, True)


def test_a_checkpoint_can_be_chosen(command, inside, trained):
    for which in ("best", "last", "2"):
        assert command("sample", trained, "--checkpoint", which, "-o", f"{which}.png")[0] == 0
    result, _, err = command("sample", trained, "--checkpoint", "1", "-o", "x.png")

    assert Path("last.png").read_bytes() == Path("2.png").read_bytes()
    assert result == 5
    assert err == f"error: {trained}: no checkpoint '1'; there are: best, last, 2; train.keep_every keeps more\n"


@pytest.mark.parametrize(
    ("arguments", "result", "message"),
    [
        (["RUN", "--seeds", "x"], 2, "--seeds x: expected whole numbers such as 7, 0-15 or 1,5,9-12"),
        (["RUN", "--seeds", "5-3"], 2, "--seeds 5-3: expected whole numbers such as 7, 0-15 or 1,5,9-12"),
        (["RUN", "--seeds=-1"], 2, "--seeds -1: expected whole numbers such as 7, 0-15 or 1,5,9-12"),
        (["RUN", "--seeds", "1,,2"], 2, "--seeds 1,,2: expected whole numbers such as 7, 0-15 or 1,5,9-12"),
        (["RUN", "--seeds", ""], 2, "--seeds : expected whole numbers such as 7, 0-15 or 1,5,9-12"),
        (
            ["RUN", "--seeds", "0-1000000000"],
            2,
            "--seeds 0-1000000000: 1,000,000,001 images are too many at once; the limit is 100,000",
        ),
        (
            ["RUN", "--seeds", "0-99999,0-99999"],
            2,
            "--seeds 0-99999,0-99999: 200,000 images are too many at once; the limit is 100,000",
        ),
        (["RUN", "--checkpoint", "frist"], 2, "--checkpoint frist: expected best, last or the number of an epoch"),
        (["RUN", "-o", "a.tga"], 2, "a.tga: unknown ending '.tga'; end it in "),
        (["RUN", "-o", "old.png"], 2, "old.png: already exists; name another file, or add --overwrite"),
        (
            ["RUN", "-o", "old", "--seeds", "0-3"],
            2,
            f"{Path('old/seed-000002.png')}: already exists; name another file, or add --overwrite",
        ),
        ([], 2, "runs: no run here yet; make one with: gantool train RECIPE"),
        (
            ["nowhere"],
            2,
            "nowhere: no run of this name and no directory with a recipe.yaml; make one with: gantool train RECIPE",
        ),
        (["old.png"], 2, "old.png: no run of this name and no directory with a recipe.yaml; "),
    ],
)
def test_samples_that_cannot_be_are_told(command, inside, trained, arguments, result, message):
    (inside / "old.png").write_text("mine")
    (inside / "old").mkdir()
    (inside / "old" / "seed-000002.png").write_text("mine")

    found, out, err = command("sample", *(trained if part == "RUN" else part for part in arguments))

    assert (found, out) == (result, "")
    assert err.startswith(f"error: {message}")
    assert len(err.splitlines()) == 1
    assert (inside / "old.png").read_text() == (inside / "old" / "seed-000002.png").read_text() == "mine"
    assert sorted(path.name for path in inside.iterdir()) == ["old", "old.png"]


def test_an_old_file_is_written_over_when_asked(command, inside, trained):
    Path("old.png").write_text("mine")

    assert command("sample", trained, "-o", "old.png", "--overwrite")[0] == 0
    assert Path("old.png").read_bytes().startswith(b"\x89PNG")


def test_a_damaged_checkpoint_is_told_in_a_line(command, inside):
    assert code("train", "gan14", *sets(train__epochs=1), "--out", "run") == 0
    Path("run/checkpoints/best.pt").write_bytes(b"<html>")

    result, _, err = command("sample", "run")

    best = Path("run/checkpoints/best.pt")
    assert result == 5
    assert err == f"error: {best}: is not a gantool checkpoint; use another checkpoint of the run\n"


def test_weights_that_are_no_numbers_are_told(command, inside):
    assert code("train", "gan14", *sets(train__epochs=1), "--out", "run") == 0
    best = Path("run/checkpoints/best.pt")
    state = checkpoints.load(best)
    state["model"]["generator.0.weight"][0, 0] = math.nan
    checkpoints.save(best, state)

    result, _, err = command("sample", "run")

    assert result == 5
    assert err == f"error: {best}: generator.0.weight is not finite; use another checkpoint of the run\n"


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda model: model.pop("generator.0.bias"), "of another model: the checkpoint has no generator.0.bias"),
        (lambda model: model.update(extra=torch.ones(1)), "of another model: the model has no extra"),
        (
            lambda model: model.update({"generator.0.weight": torch.ones(16, 9)}),
            "of another model: generator.0.weight is [16, 9], but the recipe makes it [16, 8]",
        ),
    ],
)
def test_weights_of_another_model_are_told(command, inside, trained, harm, message):
    run = Run.create((trained / "recipe.yaml").read_text(), name="x", out=Path("run"))
    state = checkpoints.load(trained / "checkpoints" / "best.pt")
    harm(state["model"])
    checkpoints.save(run.checkpoints / "best.pt", state)

    result, _, err = command("sample", "run")

    assert result == 5
    assert err == f"error: {run.checkpoints / 'best.pt'}: {message}\n"


@pytest.mark.parametrize(("name", "kind"), [("a.gif", "GIF"), ("a.webp", "WEBP"), ("a.mp4", None)])
def test_training_is_animated(command, inside, trained, name, kind):
    result, out, _ = command("animate", trained, "-o", name)

    assert (result, out) == (0, f"{name}: 2 frames\n")
    if kind is None:
        assert Path(name).read_bytes()[4:8] == b"ftyp"
    else:
        with Image.open(name) as animation:
            assert (animation.format, animation.n_frames) == (kind, 2)


@pytest.mark.parametrize("name", ["w.gif", "w.webp", "w.mp4"])
def test_a_walk_is_animated(command, inside, trained, name):
    result, out, _ = command("animate", trained, "--walk", "--seeds", "0-2", "--frames", "4", "-o", name)

    assert (result, out) == (0, f"{name}: 12 frames\n")
    assert Path(name).stat().st_size > 500


def test_files_that_only_look_like_epochs_are_left_alone(command, inside, trained):
    run = Run.create((trained / "recipe.yaml").read_text(), name="x", out=Path("run"))
    with Image.open(trained / "samples" / "epoch-0001.png") as grid:
        for name in ("epoch-10000", "epoch-9999", "epoch-0001 copy", "epoch-\u00b2"):
            grid.save(run.samples / f"{name}.png")
    (run.checkpoints / "epoch-0001 copy.pt").touch()

    assert command("animate", "run", "-o", "a.gif")[:2] == (0, "a.gif: 2 frames\n")
    assert command("sample", "run")[2] == "error: run: no checkpoint 'best'; there is none\n"
    assert command("sample", "run", "--checkpoint", "\u00b2")[0] == 2


def test_an_animation_that_cannot_be_is_told(command, inside, trained):
    Path("old.gif").write_text("mine")
    Run.create((trained / "recipe.yaml").read_text(), name="x", out=Path("new"))

    assert command("animate", trained, "-o", "old.gif")[2].startswith("error: old.gif: already exists; name another")
    assert "unknown ending '.avi'" in command("animate", trained, "-o", "a.avi")[2]
    assert command("animate", trained, "--walk", "--class", "x", "-o", "a.gif")[0] == 2
    result, _, err = command("animate", "new")
    assert (result, err) == (2, "error: new: no grids yet; train it first: gantool train new --resume\n")
    assert Path("old.gif").read_text() == "mine"
