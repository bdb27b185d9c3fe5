"""The command line: in this process where it can be, as a process of its own where streams and signals matter."""

from __future__ import annotations

import json
import math
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from gantool import __version__, checkpoints, runs
from gantool.cli.generating import read_seeds
from gantool.errors import GantoolError
from gantool.runs import Run
from PIL import Image

from commands import code, sets

posix = pytest.mark.skipif(os.name == "nt", reason="signals and descriptors of POSIX")
LOG = [
    "epoch", "images", "seconds", "measured_seconds", "images_per_second", "generator/adversarial",
    "discriminator/adversarial", "scores/real", "scores/fake", "scores/real_from_half", "scores/fake_from_half",
    "scores/accuracy", "gradients/generator", "gradients/discriminator", "measured_with", "diagnoses",
]  # fmt: skip


@pytest.fixture(autouse=True)
def data(data_dir, monkeypatch):
    monkeypatch.setenv("GANTOOL_DATA", str(data_dir))


@pytest.fixture
def gantool(capsys):
    """Run the command line in this process; gives the exit code, standard output and standard error."""

    def run(*arguments):
        capsys.readouterr()
        result = code(*arguments)
        said = capsys.readouterr()
        assert "Traceback" not in said.err
        return result, said.out, said.err

    return run


def process(*arguments, **options):
    """Run the command line as a process of its own."""
    command = [sys.executable, "-m", "gantool", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, encoding="utf-8", check=False, timeout=120, **options)


@pytest.fixture(scope="module")
def trained(tmp_path_factory, data_dir):
    """A run of two epochs, which no test changes."""
    path = tmp_path_factory.mktemp("runs") / "gan14-001"
    assert code("train", "gan14", *sets(train__keep_every=2), "--out", path, "--data-dir", data_dir) == 0
    return path


# --- help and version ---------------------------------------------------------------------------------------


def test_no_arguments_show_the_help(gantool):
    assert "Train and look:" in "".join(gantool()[1:])


def test_help_loads_no_heavy_library():
    script = (
        "import sys\nfrom gantool.cli import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit:\n    pass\n"
        "heavy = {'torch', 'ray', 'optuna', 'numpy', 'PIL', 'pydantic', 'sklearn', 'torchvision', 'plotly', 'jinja2'}\n"
        "print(sorted(heavy & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)

    assert done.stdout.splitlines()[-1] == "[]"


def test_the_module_tells_its_version():
    done = process("--version")

    assert (done.returncode, done.stdout, done.stderr) == (0, f"gantool {__version__}\n", "")


# --- training -----------------------------------------------------------------------------------------------


def test_a_trained_run_has_its_files(trained):
    assert sorted(path.name for path in trained.iterdir() if path.name[0] != ".") == [
        "checkpoints", "environment.json", "log.jsonl", "recipe.yaml", "samples",
    ]  # fmt: skip
    assert {path.name for path in (trained / "samples").iterdir()} == {"epoch-0001.png", "epoch-0002.png"}
    assert {path.name for path in (trained / "checkpoints").iterdir()} == {
        "best.pt", "last.pt", "previous.pt", "epoch-0002.pt",
    }  # fmt: skip


def test_the_log_has_the_promised_keys(trained):
    entries = Run(trained).entries()

    assert [entry["epoch"] for entry in entries] == [1, 2]
    for entry in entries:
        assert sorted(key for key in entry if not key.startswith("metrics/")) == sorted(LOG)
        assert {"metrics/fd", "metrics/fd_rand", "metrics/coverage", "metrics/copying"} <= entry.keys()
        assert list(entry)[:5] == LOG[:5]
        assert all(math.isfinite(value) for value in entry.values() if isinstance(value, float))
        assert entry["diagnoses"] == []
        assert 0 < entry["scores/real"] < 1
    assert [entry["images"] for entry in entries] == [1408, 2816]


def test_training_says_what_it_does_and_what_comes_next(gantool, inside):
    result, out, err = gantool("train", "gan14", *sets(name="x"))

    assert result == 0
    run = Path("runs/x-001")
    assert re.fullmatch(
        rf"{run}: best fd [\d.]+ ± [\d.]+ in epoch \d, \d+s\n(fd still fell in the last third of the epochs, .+:\n"
        rf"  gantool train {run} --resume --set train.epochs=4\n)?  gantool sample {run}\n  gantool animate {run}\n",
        out,
    )
    lines = err.splitlines()
    assert lines[0] == f"run {run}"
    pattern = (
        r"epoch \d/2  fd [\d.]+ ± [\d.]+  D\(x\) 0\.\d\d \([+-]0\.\d\d\)  "
        r"D\(G\(z\)\) 0\.\d\d \([+-]0\.\d\d\)  "
        r".*loss D -?\d\.\d{3}  loss G -?\d\.\d{3}  [\d,]+ images/s"
    )
    assert [bool(re.fullmatch(pattern, line)) for line in lines[-2:]] == [True, True]


def test_a_distance_older_than_a_tenth_of_the_run_is_shown_with_its_epoch(gantool, inside):
    _, _, err = gantool("train", "gan14", *sets(train__epochs=12, train__evaluate_every=12))

    told = [re.search(r"fd [\d.]+ ± [\d.]+( \(of epoch 1\))?  D", line) for line in err.splitlines()[-12:]]
    assert [match[1] for match in told] == [None] * 2 + [" (of epoch 1)"] * 9 + [None]


def test_the_same_command_gives_the_same_weights(trained, inside):
    assert code("train", "gan14", *sets(train__keep_every=2), "--out", "again") == 0

    first, second = (checkpoints.load(path / "checkpoints" / "last.pt")["model"] for path in (trained, Path("again")))
    assert all(torch.equal(value, second[name]) for name, value in first.items())


def test_a_run_goes_on_for_more_epochs(gantool, trained, inside):
    assert code("train", "gan14", *sets(train__epochs=1), "--out", "run") == 0
    result, _, err = gantool("train", "run", "--resume", "--set", "train.epochs=2")
    assert result == 0
    assert "resuming after epoch 1" in err

    first, second = (checkpoints.load(path / "checkpoints" / "last.pt")["model"] for path in (trained, Path("run")))
    assert all(torch.equal(value, second[name]) for name, value in first.items())
    assert [entry["epoch"] for entry in Run(Path("run")).entries()] == [1, 2]
    result, out, _ = gantool("train", "run", "--resume")
    longer = "gantool train run --resume --set train.epochs=4"
    assert (result, out) == (0, f"run already has its 2 epochs; to train it longer:\n  {longer}\n")


def test_commands_on_a_run_use_the_data_directory_that_it_was_trained_with(
    gantool, inside, trained, data_dir, monkeypatch
):
    monkeypatch.delenv("GANTOOL_DATA")
    monkeypatch.setattr("platformdirs.user_cache_path", lambda *_, **__: pytest.fail("the user's cache is not used"))

    assert Run(trained).data_dir == data_dir
    assert code("train", trained, "--resume") == 0
    assert code("nearest", trained, "-o", "nearest.png") == 0
    assert code("score", trained, "--metrics", "fd", "--images", 16) == 0


def test_a_run_that_was_killed_before_its_first_checkpoint_starts_over(gantool, inside):
    assert code("train", "gan14", *sets(train__epochs=1), "--out", "run") == 0
    for file in Path("run/checkpoints").iterdir():
        file.unlink()

    assert code("train", "run", "--resume") == 0
    assert [entry["epoch"] for entry in Run(Path("run")).entries()] == [1]


def test_a_damaged_checkpoint_falls_back_to_the_one_before(gantool, inside):
    assert code("train", "gan14", *sets(), "--out", "run") == 0
    last = Path("run/checkpoints/last.pt")
    last.write_bytes(last.read_bytes()[:-1])

    result, _, err = gantool("train", "run", "--resume")

    assert result == 0
    assert (
        f"{last}: is damaged (its SHA-256 does not match); use another checkpoint of the run; resuming from previous.pt"
        in err
    )
    assert "resuming after epoch 1" in err
    assert [entry["epoch"] for entry in Run(Path("run")).entries()] == [1, 2]


def test_weights_alone_are_not_enough_to_go_on(gantool, inside):
    assert code("train", "gan14", *sets(train__epochs=1), "--out", "run") == 0
    last = Path("run/checkpoints/last.pt")
    Path("run/checkpoints/best.pt").replace(last)

    result, _, err = gantool("train", "run", "--resume", "--set", "train.epochs=2")

    assert result == 5
    assert err.splitlines()[-1] == (
        f"error: {last}: lacks trainer, position, health; it holds weights only, use last.pt"
    )


def test_data_with_other_classes_are_no_data_to_go_on_with(gantool, inside):
    for name in ("cat", "dog"):
        (inside / "pets" / name).mkdir(parents=True)
        Image.new("L", (8, 8), 99).save(inside / "pets" / name / "1.png")
    assert code("train", "gan14", *sets(data__source="pets", train__epochs=1), "--out", "run") == 0
    (inside / "pets" / "eel").mkdir()
    Image.new("L", (8, 8)).save(inside / "pets" / "eel" / "1.png")

    result, _, err = gantool("train", "run", "--resume", "--set", "train.epochs=2")

    assert result == 3
    assert err.splitlines()[-1] == (
        f"error: {Path('run/checkpoints/last.pt')}: was trained on classes cat, dog, but the data have cat, dog, eel; "
        "bring them back, or start a new run"
    )


def test_what_would_make_another_run_is_refused_when_going_on(gantool, trained):
    result, _, err = gantool("train", trained, "--resume", "--set", "train.batch_size=7")

    assert result == 2
    assert err == (f"error: {trained}: was started with train.batch_size=128, not 7; start a new run for that\n")


def test_two_processes_cannot_train_one_run(gantool, inside):
    assert code("train", "gan14", *sets(train__epochs=1), "--out", "run") == 0

    with Run(Path("run")).lock():
        result, _, err = gantool("train", "run", "--resume", "--set", "train.epochs=2")

    assert result == 2
    assert f"error: run: in use by process {os.getpid()} on " in err


def test_a_loss_that_is_no_number_ends_training_and_keeps_the_checkpoints(gantool, inside):
    deep = sets(train__epochs=1, model__discriminator=[16] * 12, model__dropout=0.0)
    assert code("train", "gan14", *deep, "--out", "run") == 0
    last = Path("run/checkpoints/last.pt")
    state = checkpoints.load(last)
    for adam in state["trainer"]["optimizers"].values():
        adam["param_groups"][0]["lr"] = 1000.0  # as if the recipe had said so
    checkpoints.save(last, state)
    before = {path.name: path.read_bytes() for path in last.parent.iterdir()}

    result, _, err = gantool("train", "run", "--resume", "--set", "train.epochs=9")

    assert result == 4
    message = err.splitlines()[-1]
    assert re.fullmatch(
        r"error: run: \w+/\w+ became (nan|-?inf) in epoch \d, batch \d+; rolled back to the checkpoint of epoch \d; "
        r"start a new run with a lower train\.optimizer\.lr than 0\.0002 \(gantool explain nonfinite\)",
        message,
    )
    after = {path.name: path.read_bytes() for path in last.parent.iterdir()}
    assert all(after[name] == content for name, content in before.items() if name == "best.pt")
    assert all(checkpoints.load(path) for path in last.parent.iterdir())
    assert gantool("sample", "run")[0] == 0


@pytest.mark.parametrize(
    ("arguments", "result", "message"),
    [
        (["nothing"], 2, "unknown recipe 'nothing'; known: "),
        (["a/gan14.yaml"], 2, "a/gan14.yaml: no such recipe file; the shipped recipe is called 'gan14'"),
        (["gan14", "--set", "train.epochs"], 2, "--set train.epochs: expected key=value, such as train.epochs=5"),
        (["gan14", "--epochs", "5"], 2, "unknown option '--epochs'; did you mean '--set train.epochs=VALUE'? see: "),
        (["gan14", "--set"], 2, "--set: needs a value; see: gantool train --help"),
        (["gan14", "--set", "epochs=5"], 2, "--set epochs: unknown key 'epochs'; did you mean 'train.epochs'?"),
        (["gan14", "--set", "train.epohcs=5"], 2, "--set train.epohcs: unknown key 'epohcs'; did you mean 'epochs'?"),
        (["gan14", "--set", "loss=hing"], 2, "--set loss: unknown loss 'hing'; did you mean 'hinge'?"),
        (["gan14", "--set", "data.source=nothing"], 3, "data.source: unknown source 'nothing'; known: "),
        (
            ["gan14", "--set", "data.source=https://example.org/a.zip"],
            3,
            "data.source: https://example.org/a.zip is an address; fetch it first: ",
        ),
        (
            ["gan14", *sets(data__classes='["11"]')],
            3,
            "digits: unknown class '11'; did you mean '1'?; data.classes names the ones to keep, null keeps all",
        ),
        (["dcgan28", *sets(), "--set", "model=dcgan"], 2, ""),
        (["dcgan28", "--set", "data.source=digits", "--set", "data.size=9"], 2, ""),
        ([], 2, "train: name a recipe, such as: gantool train gan14; or resume the newest run with --resume"),
        (["--resume"], 2, "runs: no run here yet; make one with: gantool train RECIPE"),
        (
            ["gan14", *sets(), "--out", "file"],
            2,
            "file: is a file; name a new directory with --out, or resume with --resume",
        ),
        (
            ["gan14", *sets(), "--out", "full"],
            2,
            "full: already holds something; name a new directory with --out, or resume with --resume",
        ),
        (["gan14", *sets(), "--device", "gpu"], 7, "--device gpu: not on this machine; here are: auto, cpu"),
        (["gan14", *sets(), "--device", "cuda:99"], 7, "--device cuda:99: not on this machine; here are: auto, cpu"),
    ],
)
def test_a_mistake_is_told_in_a_line_and_leaves_no_run(gantool, inside, arguments, result, message):
    (inside / "full").mkdir()
    (inside / "full" / "mine").touch()
    (inside / "file").touch()

    found, out, err = gantool("train", *arguments)

    assert (found, out) == (result, "")
    assert any(line.startswith(f"error: {message}") for line in err.splitlines()), err
    assert sorted(path.name for path in inside.iterdir() if path.name != "runs") == ["file", "full"]
    assert list((inside / "full").iterdir()) == [inside / "full" / "mine"]
    assert list((inside / "runs").iterdir() if (inside / "runs").exists() else []) == []


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has CUDA")
def test_a_gpu_that_is_not_there_is_told(gantool, inside, trained):
    assert gantool("train", "gan14", *sets(), "--device", "cuda")[0] == 7
    result, _, err = gantool("sample", trained, "--device", "cuda", "-o", "a.png")

    assert result == 7
    assert err.startswith("error: --device cuda: not on this machine; here are: auto, cpu")


# --- images -----------------------------------------------------------------------------------------------


def test_a_grid_of_samples_is_written(gantool, inside, trained):
    result, out, _ = gantool("sample", trained, "--seeds", "0-8", "-o", "deep/grid.png")

    assert result == 0
    assert re.fullmatch(r"deep.grid.png: 9 images of epoch [12]\n", out)
    with Image.open("deep/grid.png") as grid:
        assert grid.mode == "L"
        assert grid.width == grid.height == 2 + 3 * (8 * 7 + 2)


def test_a_folder_of_samples_has_a_image_a_seed(gantool, inside, trained):
    result, out, _ = gantool("sample", trained, "--seeds", "7,100-101", "-o", "images")

    assert result == 0
    assert re.fullmatch(r"images.: 3 images of epoch [12]\n", out)
    files = ["seed-000007.png", "seed-000100.png", "seed-000101.png"]
    assert sorted(path.name for path in Path("images").iterdir()) == files
    with Image.open("images/seed-000007.png") as picture:
        assert picture.size == (8, 8)


def test_a_seed_is_the_same_image_in_any_batch(gantool, inside, trained):
    for seeds, folder in (("3", "one"), ("0-70", "many")):
        assert gantool("sample", trained, "--seeds", seeds, "-o", folder)[0] == 0

    pictures = [np.asarray(Image.open(Path(folder) / "seed-000003.png")) for folder in ("one", "many")]
    assert np.array_equal(*pictures)


def test_without_a_name_samples_go_into_the_run(gantool, inside):
    assert code("train", "gan14", *sets(train__epochs=1)) == 0

    result, out, _ = gantool("sample", "--seeds", "0-3")
    again = gantool("sample", "--seeds", "0-3")[0]

    assert (result, again) == (0, 0)  # what gantool named itself, it may write again
    assert out == f"{Path('runs/gan14-001/sample-0-3.png')}: 4 images of epoch 1\n"


def test_a_class_is_refused_by_a_model_that_is_not_told_classes(gantool, inside, trained):
    result, _, err = gantool("sample", trained, "--class", "3", "-o", "x.png")
    assert (result, Path("x.png").exists()) == (2, False)
    assert err == "error: --class 3: mlp has no classes; leave it out; a conditional model has some, such as cgan_egg\n"


def test_without_a_name_an_unfinished_study_is_not_taken_for_the_newest_run(gantool, inside, trained):
    Path("runs/gan14-001").parent.mkdir()
    shutil.copytree(trained, "runs/gan14-001")
    shutil.copytree(trained, "runs/gan14-002")
    Path("runs/gan14-002/study.json").write_text("{}")
    result, out, _ = gantool("sample", "--seeds", "0")
    assert (result, out.startswith(str(Path("runs/gan14-001")))) == (0, True)


def test_a_checkpoint_can_be_chosen(gantool, inside, trained):
    for which in ("best", "last", "2"):
        assert gantool("sample", trained, "--checkpoint", which, "-o", f"{which}.png")[0] == 0
    result, _, err = gantool("sample", trained, "--checkpoint", "1", "-o", "x.png")

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
def test_samples_that_cannot_be_are_told(gantool, inside, trained, arguments, result, message):
    (inside / "old.png").write_text("mine")
    (inside / "old").mkdir()
    (inside / "old" / "seed-000002.png").write_text("mine")

    found, out, err = gantool("sample", *(trained if part == "RUN" else part for part in arguments))

    assert (found, out) == (result, "")
    assert err.startswith(f"error: {message}")
    assert len(err.splitlines()) == 1
    assert (inside / "old.png").read_text() == (inside / "old" / "seed-000002.png").read_text() == "mine"
    assert sorted(path.name for path in inside.iterdir()) == ["old", "old.png"]


def test_an_old_file_is_written_over_when_asked(gantool, inside, trained):
    Path("old.png").write_text("mine")

    assert gantool("sample", trained, "-o", "old.png", "--overwrite")[0] == 0
    assert Path("old.png").read_bytes().startswith(b"\x89PNG")


def test_a_damaged_checkpoint_is_told_in_a_line(gantool, inside):
    assert code("train", "gan14", *sets(train__epochs=1), "--out", "run") == 0
    Path("run/checkpoints/best.pt").write_bytes(b"<html>")

    result, _, err = gantool("sample", "run")

    best = Path("run/checkpoints/best.pt")
    assert result == 5
    assert err == f"error: {best}: is not a gantool checkpoint; use another checkpoint of the run\n"


def test_weights_that_are_no_numbers_are_told(gantool, inside):
    assert code("train", "gan14", *sets(train__epochs=1), "--out", "run") == 0
    best = Path("run/checkpoints/best.pt")
    state = checkpoints.load(best)
    state["model"]["generator.0.weight"][0, 0] = math.nan
    checkpoints.save(best, state)

    result, _, err = gantool("sample", "run")

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
        (
            lambda model: model.update({"generator.0.weight": torch.ones(1).expand(10**6, 10**6)}),
            "of another model: generator.0.weight is [1000000, 1000000], but the recipe makes it [16, 8]",
        ),
    ],
)
def test_weights_of_another_model_are_told(gantool, inside, trained, harm, message):
    run = Run.create((trained / "recipe.yaml").read_text(), name="x", out=Path("run"))
    state = checkpoints.load(trained / "checkpoints" / "best.pt")
    harm(state["model"])
    checkpoints.save(run.checkpoints / "best.pt", state)

    result, _, err = gantool("sample", "run")

    assert result == 5
    assert err == f"error: {run.checkpoints / 'best.pt'}: {message}\n"


@pytest.mark.parametrize(("name", "kind"), [("a.gif", "GIF"), ("a.webp", "WEBP"), ("a.mp4", None)])
def test_training_is_animated(gantool, inside, trained, name, kind):
    result, out, _ = gantool("animate", trained, "-o", name)

    assert (result, out) == (0, f"{name}: 2 frames\n")
    if kind is None:
        assert Path(name).read_bytes()[4:8] == b"ftyp"
    else:
        with Image.open(name) as animation:
            assert (animation.format, animation.n_frames) == (kind, 2)


@pytest.mark.parametrize("name", ["w.gif", "w.webp", "w.mp4"])
def test_a_walk_is_animated(gantool, inside, trained, name):
    result, out, _ = gantool("animate", trained, "--walk", "--seeds", "0-2", "--frames", "4", "-o", name)

    assert (result, out) == (0, f"{name}: 12 frames\n")
    assert Path(name).stat().st_size > 500


def test_files_that_only_look_like_epochs_are_left_alone(gantool, inside, trained):
    run = Run.create((trained / "recipe.yaml").read_text(), name="x", out=Path("run"))
    with Image.open(trained / "samples" / "epoch-0001.png") as grid:
        for name in ("epoch-10000", "epoch-9999", "epoch-0001 copy", "epoch-\u00b2"):
            grid.save(run.samples / f"{name}.png")
    (run.checkpoints / "epoch-0001 copy.pt").touch()

    assert gantool("animate", "run", "-o", "a.gif")[:2] == (0, "a.gif: 2 frames\n")
    assert gantool("sample", "run")[2] == "error: run: no checkpoint 'best'; there is none\n"
    assert gantool("sample", "run", "--checkpoint", "\u00b2")[0] == 2


def test_an_animation_that_cannot_be_is_told(gantool, inside, trained):
    Path("old.gif").write_text("mine")
    Run.create((trained / "recipe.yaml").read_text(), name="x", out=Path("new"))

    assert gantool("animate", trained, "-o", "old.gif")[2].startswith("error: old.gif: already exists; name another")
    assert "unknown ending '.avi'" in gantool("animate", trained, "-o", "a.avi")[2]
    assert gantool("animate", trained, "--walk", "--class", "x", "-o", "a.gif")[0] == 2
    result, _, err = gantool("animate", "new")
    assert (result, err) == (2, "error: new: no grids yet; train it first: gantool train new --resume\n")
    assert Path("old.gif").read_text() == "mine"


# --- shapes and data ----------------------------------------------------------------------------------------


def test_shapes_are_a_table_or_json(gantool):
    result, out, _ = gantool("shapes", "dcgan28")
    assert result == 0
    assert "2,308,609 parameters in generator" in out
    assert "(7 - 1)*2 - 2*1 + 4 = 14" in out

    result, out, err = gantool("shapes", "dcgan28", "--json")
    rows = json.loads(out)
    assert (result, err) == (0, "")
    assert set(rows[0]) == {"network", "layer", "kind", "input", "output", "parameters", "formula"}
    assert {row["network"] for row in rows} == {"generator", "discriminator"}
    assert sum(row["parameters"] for row in rows if row["network"] == "generator") == 2_308_609


def test_shapes_that_do_not_fit_are_told(gantool):
    result, _, err = gantool("shapes", "dcgan28", "--set", "data.size=27")

    assert result == 2
    assert re.fullmatch(r"error: generator: makes images of 1x28x28, but the data's are 1x27x27; .*\n", err)


def test_sources_are_listed(gantool, data_dir):
    result, out, _ = gantool("data", "list")

    assert result == 0
    for name in ("eggs", "digits", "mnist", "fashion_mnist", "kmnist", "cifar10"):
        assert re.search(rf"^{name} ", out, re.MULTILINE)
    assert re.search(r"^digits +here ", out, re.MULTILINE)
    assert out.splitlines()[-1] == f"data directory: {data_dir}"


def test_a_contact_sheet_is_drawn(gantool, inside):
    options = ["--set", "size=8", "--set", 'data.classes=["3", "7"]']
    result, out, _ = gantool("data", "show", "digits", *options)

    assert (result, out) == (0, "sheet.png: 362 images in 2 classes\n")
    assert Path("sheet.png").read_bytes().startswith(b"\x89PNG")
    result, _, err = gantool("data", "show", "digits", *options)
    assert (result, err) == (2, "error: sheet.png: already exists; name another file, or add --overwrite\n")
    assert gantool("data", "show", "digits", *options, "--overwrite")[0] == 0


@pytest.mark.parametrize(
    ("arguments", "result", "message"),
    [
        (["show", "digits", "--set", "size=x"], 2, '--set data.size: expected a whole number or a list, got "x"'),
        (["show", "digits", "--set", "data.size=0"], 2, "--set data.size: expected at least 1 or a list, got 0"),
        (["show", "digits", "--set", "sise=5"], 2, "--set data.sise: unknown key 'sise'; did you mean 'size'?"),
        (["show", "digits", "--set", "data.classes=[3]"], 2, "--set data.classes.0: expected text, got 3; in quotes"),
        (["show", "digist"], 3, "data.source: unknown source 'digist'; did you mean 'digits'?; see: gantool data list"),
        (["show", "gan41.yaml"], 2, "gan41.yaml: no such recipe file"),
        (["fetch", "mnits"], 3, "data.source: unknown source 'mnits'; did you mean 'mnist'?; see: gantool data list"),
        (
            ["fetch", "digits", "--name", "x"],
            3,
            "--name x: only images from an address get a name; leave it out",
        ),
        (
            ["fetch", "https://example.org/a.zip", "--name", "a b"],
            3,
            "--name a b: expected a new name of letters, digits, ",
        ),
    ],
)
def test_data_that_cannot_be_are_told(gantool, inside, arguments, result, message):
    found, out, err = gantool("data", *arguments)

    assert (found, out) == (result, "")
    assert err.startswith(f"error: {message}")
    assert len(err.splitlines()) == 1


READY = "digits is downloaded; use it with: --set data.source=digits\n"


def test_a_source_that_is_here_is_fetched_at_once(gantool):
    assert gantool("data", "fetch", "digits")[:2] == (0, READY)


def test_the_data_of_a_recipe_are_fetched_and_shown(gantool, inside):
    Path("mine.yaml").write_text(
        "model: mlp\nloss: hinge\ndata: {source: digits, size: 8}\ntrain: {epochs: 1}\n", encoding="utf-8"
    )

    assert gantool("data", "fetch", "mine.yaml")[:2] == (0, READY)
    assert gantool("data", "show", "mine.yaml")[:2] == (0, "sheet.png: 1,797 images in 10 classes\n")


def test_the_pairs_of_a_recipe_are_drawn_each_target_beside_its_source(gantool, inside):
    for index in range(3):
        for side, colour in (("A", (200, 10 * index, 0)), ("B", (0, 10 * index, 200))):
            Path("mine", side).mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (8, 8), colour).save(Path("mine", side, f"{index}.png"))
    recipe = "model: {name: pix2pix, levels: 3, norm: instance, dropout: 0.5}\nloss: hinge\n"
    Path("mine.yaml").write_text(recipe + "data: {source: ./mine, size: 8}\ntrain: {epochs: 1}\n", encoding="utf-8")

    assert gantool("data", "show", "mine.yaml")[:2] == (0, "sheet.png: 3 of 3 pairs\n")
    pixels = np.asarray(Image.open("sheet.png").convert("RGB")).astype(int)
    middle = next(row for row in pixels if (row == (200, 0, 0)).all(1).any())
    sides = [("A" if red == 200 else "B") for red, _, blue in middle if 200 in (red, blue)]
    assert [side for place, side in enumerate(sides) if place == 0 or sides[place - 1] != side] == ["A", "B"] * 3
    options = ["--set", "data.classes=[B, A]", "-o", "turned.png"]
    assert gantool("data", "show", "mine.yaml", *options)[0] == 0
    assert Path("turned.png").read_bytes() != Path("sheet.png").read_bytes()


@pytest.mark.parametrize("what", ["income", "dnn_income"])
def test_rows_of_a_table_are_printed_and_nothing_is_drawn(gantool, inside, what):
    result, out, err = gantool("data", "show", what)

    assert (result, err) == (0, "")
    assert out.splitlines()[-1] == "3,200 rows to learn from, 800 held out"
    assert {word for line in out.splitlines() for word in line.split() if word in {"<=50K", ">50K"}} == {
        "<=50K",
        ">50K",
    }
    assert list(inside.iterdir()) == []


def test_seeds_are_read_as_people_write_them():
    assert read_seeds("7") == [7]
    assert read_seeds("0-3") == [0, 1, 2, 3]
    assert read_seeds(" 1, 5,9-11") == [1, 5, 9, 10, 11]
    with pytest.raises(GantoolError, match="too many at once"):
        read_seeds("0-100000")


def test_the_data_directory_is_a_users_cache_by_default(monkeypatch):
    monkeypatch.delenv("GANTOOL_DATA")

    assert runs.data_root(None).name == "gantool"
    assert runs.data_root(Path("here")) == Path("here").absolute()


# --- streams ------------------------------------------------------------------------------------------------


@posix
def test_a_reader_that_has_had_enough_ends_it_quietly():
    for arguments in (["shapes", "dcgan28", "--json"], ["data", "list"]):
        reader, writer = os.pipe()
        os.close(reader)
        command = [sys.executable, "-m", "gantool", *arguments]
        done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True, check=False)
        os.close(writer)

        assert (done.returncode, done.stderr) == (141, "")


@posix
def test_training_whose_reader_has_gone_saves_the_run_and_says_so_by_its_exit_code(gantool, inside):
    command = [sys.executable, "-m", "gantool", "train", "gan14", *sets(train__epochs=100_000), "--out", "run"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as training:
        waited(Path("run/samples/epoch-0003.png"))
        training.stderr.close()
        assert training.wait(timeout=60) == 141

    saved = checkpoints.load(Path("run/checkpoints/last.pt"))["epoch"]
    assert saved >= 2
    assert gantool("train", "run", "--resume", "--set", f"train.epochs={saved + 1}")[0] == 0


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no device that is always full")
def test_a_full_disk_under_the_output_is_an_error_in_a_line_and_the_run_is_kept(inside):
    command = [sys.executable, "-m", "gantool", "train", "gan14", *sets(), "--out", "run"]
    with Path("/dev/full").open("w", encoding="utf-8") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
        assert done.returncode == 7
        assert done.stderr.splitlines()[-1].startswith("error: the output cannot be written (No space left on device)")
        assert len(Run(Path("run")).entries()) == 2
        assert subprocess.run([*command[:-1], "other"], stdout=full, stderr=full, check=False).returncode == 7
        assert not Path("other").exists(), "nothing had begun"


@posix
def test_a_signal_that_the_process_was_started_to_ignore_is_ignored(inside):
    options = sets(train__epochs=100_000, train__evaluate_every=1000)
    command = [sys.executable, "-m", "gantool", "train", "gan14", *options, "--out", "run"]

    def start_as_nohup_does():
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        signal.signal(signal.SIGINT, signal.SIG_IGN)

    with subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, preexec_fn=start_as_nohup_does
    ) as training:
        waited(Path("run/samples/epoch-0002.png"))
        training.send_signal(signal.SIGHUP)
        training.send_signal(signal.SIGINT)
        reached = len(Run(Path("run")).entries())
        waited(Path(f"run/samples/epoch-{reached + 5:04d}.png"))
        training.send_signal(signal.SIGTERM)
        assert training.wait(timeout=60) == 143


@posix
def test_a_closed_standard_output_is_no_error():
    command = f"{shlex.quote(sys.executable)} -m gantool shapes gan14 --json >&-"
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=False)

    assert (done.returncode, done.stderr) == (0, "")


def test_a_console_that_knows_ascii_only_is_no_error(tmp_path):
    (tmp_path / "달걀").mkdir()
    Image.new("L", (8, 8)).save(tmp_path / "달걀" / "1.png")
    environment = os.environ | {"PYTHONIOENCODING": "ascii", "NO_COLOR": "1", "PYTHONUTF8": "0"}

    done = process("data", "show", tmp_path / "달걀", "-o", tmp_path / "sheet.png", env=environment)

    assert done.returncode == 0
    assert "decoding" in done.stderr
    assert "??" in done.stderr
    assert done.stdout.endswith("1 image in 1 class\n")


def test_an_error_goes_to_standard_error_with_its_code():
    done = process("data", "fetch", "nothing")

    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr.startswith("error: data.source: unknown source 'nothing'; known: ")
    assert "\x1b" not in done.stderr


# --- signals ------------------------------------------------------------------------------------------------


def waited(path):
    """Wait until a process has made a file."""
    deadline = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < deadline, path
        time.sleep(0.01)


@posix
@pytest.mark.parametrize(("kind", "result"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_saves_and_the_printed_command_goes_on(gantool, inside, kind, result):
    run = Path("my runs/long")
    options = sets(train__epochs=100_000, train__evaluate_every=1000, train__checkpoint_every=100_000)
    command = [sys.executable, "-m", "gantool", "train", "gan14", *options, "--out", str(run)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as training:
        waited(run / "samples" / "epoch-0003.png")
        training.send_signal(kind)
        out, err = training.communicate(timeout=30)

    assert training.returncode == result, err
    assert err.count("stopping: the run is being saved; Ctrl-C again exits at once\n") == 1
    first, hint = out.splitlines()
    assert re.fullmatch(r"stopped in epoch \d+; to resume:", first)
    assert not (run / "lock").exists()
    stopped = int(re.search(r"\d+", first)[0])
    assert checkpoints.load(run / "checkpoints" / "last.pt")["epoch"] in (stopped - 1, stopped)

    arguments = shlex.split(hint)[1:]
    assert arguments == ["train", str(run), "--resume"]
    again, _, err = gantool(*arguments, "--set", f"train.epochs={stopped + 1}")
    assert again == 0
    assert "resuming after epoch " in err
    assert [entry["epoch"] for entry in Run(run).entries()] == list(range(1, stopped + 2))


@posix
def test_a_killed_run_goes_on_from_its_last_checkpoint(gantool, trained, inside):
    command = [sys.executable, "-m", "gantool", "train", "gan14", *sets(train__epochs=100_000), "--out", "run"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as training:
        waited(Path("run/checkpoints/previous.pt"))
        training.kill()
        training.communicate(timeout=30)
    saved = checkpoints.load(Path("run/checkpoints/previous.pt"))["epoch"]
    run = Run(Path("run"))
    assert (run.path / "lock").exists()
    told = run.entries()

    result, _, err = gantool("train", "run", "--resume", "--set", f"train.epochs={told[-1]['epoch'] + 3}")

    assert result == 0
    assert int(re.search(r"resuming after epoch (\d+)", err)[1]) >= saved
    entries = run.entries()
    assert [entry["epoch"] for entry in entries] == list(range(1, told[-1]["epoch"] + 4))
    same = ["generator/adversarial", "metrics/fd"]
    assert [[row[key] for key in same] for row in entries[:2]] == [
        [row[key] for key in same] for row in Run(trained).entries()
    ]
    assert not [path for path in run.path.rglob("*") if path.name.endswith(".part") or path.name == "lock"]


@posix
def test_a_signal_before_the_first_step_ends_it_at_once_and_leaves_no_run(inside):
    command = [sys.executable, "-m", "gantool", "train", "cgan_egg", "--set", "data.classes=null", "--data-dir", "data"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as training:
        for line in training.stderr:
            if line.startswith("rendering eggs"):
                break
        start = time.monotonic()
        training.send_signal(signal.SIGINT)
        out, err = training.communicate(timeout=30)

    assert (training.returncode, out, err) == (130, "", "stopped before the first step\n")
    assert time.monotonic() - start < 20
    assert list(Path("runs").iterdir()) == []
    assert list(Path("data").glob("stores/*/about.json")) == []


@posix
def test_a_second_signal_ends_it_at_once(inside):
    options = sets(train__epochs=100_000)
    command = [sys.executable, "-m", "gantool", "train", "gan14", *options, "--out", "run"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as training:
        waited(Path("run/samples/epoch-0002.png"))
        training.send_signal(signal.SIGINT)
        training.send_signal(signal.SIGINT)
        _, err = training.communicate(timeout=30)

    assert training.returncode in (130, -signal.SIGINT)
    assert "Traceback" not in err
    assert any(checkpoints.load(path) for path in Path("run/checkpoints").glob("*.pt"))
