"""`score`, `compare` and `nearest`, as a person types them; on real digits and rendered eggs."""

from __future__ import annotations

import json
import math
import re
import shutil

import pytest
import torch
from gantool import terminal
from gantool.data.sources.eggs import render
from gantool.errors import command_line
from gantool.inference import compare
from gantool.training import engine
from PIL import Image

from trained import run_in, train

DIGITS = {
    "data.source": "digits",
    "data.classes": ["3", "5"],
    "train.batch_size": 32,
    "train.evaluate_images": 200,
    "train.evaluate_every": 100,
}


def trained(path, data_dir, name="gan14", **changes):
    recipe = engine.open_recipe(name, {**DIGITS, **{key.replace("__", "."): value for key, value in changes.items()}})
    run = run_in(path, recipe)
    train(recipe, run, data_dir)
    return run


@pytest.fixture(scope="module")
def runs(tmp_path_factory, data_dir):
    """Two runs on the same images, the second trained for longer."""
    place = tmp_path_factory.mktemp("home") / "runs"
    return [
        trained(place / f"gan14-00{number}", data_dir, train__epochs=epochs) for number, epochs in ((1, 1), (2, 30))
    ]


def folder_of_eggs(path, numbers, size=32, name="Egg"):
    path.mkdir()
    for number in numbers:
        Image.fromarray(render(name, number, size)).save(path / f"{number:03d}.png")
    return path


def test_a_score_holds_every_metric_and_is_kept_with_its_conditions(runs, command):
    run = runs[1]
    before = torch.get_rng_state()
    code, out, _ = command("score", run.path, "--json", "--device", "cpu")
    assert code == 0
    assert torch.equal(before, torch.get_rng_state())
    found = json.loads(out)
    assert found.pop("verdict").startswith("fd is ")
    assert json.loads((run.path / "scores.jsonl").read_text("utf-8").splitlines()[-1]) == found
    values, about = found["values"], found["measured_with"]
    weights = {"rand": 4, "texture": 1, "pretext": 2, "judge": 2}
    parts = [values[f"fd_{name}"] ** (weight / 9) for name, weight in weights.items()]
    assert values["fd"] == pytest.approx(math.prod(parts))
    assert 0 < values["fd_deviation"] < values["fd"]
    for name in ("kd", "coverage", "nearest_neighbour", "copying", "support", "precision",
                 "recall", "density", "inception_score"):  # fmt: skip
        assert values[name] is not None
    assert "judge_accuracy" not in values  # gan14 has no classes
    assert (about["real"], about["held_out"], about["fake"]) == (292, 73, 200)
    assert [name.partition("-")[0] for name in about["extractors"]] == list(weights) == list(about["units"])
    assert {"seed", "size", "epoch", "checkpoint", "floor_deviation"} <= about.keys()


def test_train_score_and_compare_measure_the_same_value_of_a_checkpoint(runs, command, data_dir, tmp_path):
    run = runs[1]
    logged = min(entry["metrics/fd"] for entry in run.entries() if "metrics/fd" in entry)
    _, out, _ = command("score", run.path, "--metrics", "fd,fd_v1", "--json", "--device", "cpu")
    found = json.loads(out)
    values, units = found["values"], found["measured_with"]["units"]
    rows = compare.compare(runs, tmp_path / "sheet.png", device="cpu", data_dir=data_dir)
    compared = next(row for row in rows if row.run == str(run.path))
    # `sample` computes in double precision, so that a pixel in a million is rounded the other way.
    assert values["fd"] == pytest.approx(logged, rel=1e-3)
    assert compared.values["fd"] == values["fd"]
    entry = next(entry for entry in run.entries() if entry.get("metrics/fd") == logged)
    assert found["measured_with"].items() >= entry["measured_with"].items()
    raw = [values[f"fd_{name}"] * units[name] for name in ("rand", "pretext")]
    assert values["fd_v1"] == pytest.approx(math.sqrt(raw[0] * raw[1]), rel=1e-4)


def test_the_table_of_a_score_says_what_each_number_means_and_what_is_missing(runs, command):
    metrics = "fd,coverage,judge_accuracy"
    code, out, _ = command("score", runs[1].path, "--metrics", metrics, "--images", 100, "--device", "cpu")
    lines = out.splitlines()
    assert code == 0
    names = ["fd", "fd_rand", "fd_texture", "fd_pretext", "fd_judge", "coverage"]
    assert [line.split()[0] for line in lines[3:9]] == names
    assert "lower is better" in out
    assert "100 generated against 292 real images of 1x14x14, 73 more held out" in out
    assert re.search(r"^fd +[\d.]+ ± [\d.]+ +1\.0", out, re.MULTILINE)
    assert "± is a standard deviation over other draws of images; differences of less than two are noise" in out
    assert lines[-1] == "not measured, because classes or images are too few: judge_accuracy"


def test_metrics_for_information_are_printed_on_request(runs, command):
    _, out, _ = command("score", runs[1].path)
    assert "coverage" in out
    assert "inception_score" not in out

    _, everything, _ = command("score", runs[1].path, "--all")
    assert re.search(r"^inception_score +\d", everything, re.MULTILINE)
    assert re.search(r"^seed \d+; extractors rand-", everything, re.MULTILINE)


def test_a_folder_without_real_images_is_refused_with_the_command(command, tmp_path):
    images = folder_of_eggs(tmp_path / "images", range(3))
    code, out, err = command("score", images)
    assert (code, out) == (2, "")
    assert err == (
        f"error: {images}: is no run; a folder is measured against real images: "
        f"{command_line('score', images, '--against', 'FOLDER')}\n"
    )


def test_a_handful_of_images_has_no_floor_and_says_how_little_it_means(command, tmp_path):
    few, others = folder_of_eggs(tmp_path / "few", range(3)), folder_of_eggs(tmp_path / "others", range(5, 25))
    _, out, _ = command("score", others, "--against", few, "--json")
    found = json.loads(out, parse_constant=pytest.fail)
    assert found["measured_with"]["floor_deviation"] is None
    assert found["verdict"].startswith("with so few images fd ranks generators, but does not measure quality")


def test_a_folder_with_one_image_has_no_score(runs, command, tmp_path):
    few, one = folder_of_eggs(tmp_path / "few", range(4)), folder_of_eggs(tmp_path / "one", range(1))
    message = f"error: {one}: holds one image, but a score compares many; give a folder of 12 or more\n"
    for what, against in ((one, few), (few, one), (runs[1].path, one)):
        code, out, err = command("score", what, "--against", against)
        assert (code, out, err.splitlines(keepends=True)[-1]) == (3, "", message)
    assert command("score", one, "--against", one, "--metrics", "psnr")[0] == 0


def test_a_run_on_a_folder_is_scored_from_anywhere(command, tmp_path, monkeypatch):
    folder_of_eggs(tmp_path / "eggs", range(30))
    monkeypatch.chdir(tmp_path)
    changes = ["--set", "data.source=eggs/", "--set", "data.size=14", "--set", "train.epochs=1"]
    code, _, err = command("train", "gan14", *changes, "--out", tmp_path / "run", "--device", "cpu")
    assert code == 0
    assert "learning from 18 images; 12 more are held out; with fewer than 60 images fd ranks settings" in err
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    score = ("score", tmp_path / "run", "--metrics", "fd", "--device", "cpu")
    assert command(*score)[0] == 0
    shutil.rmtree(tmp_path / "eggs")
    code, _, err = command(*score)
    assert code == 3
    assert f"data.source: {tmp_path / 'eggs'}: no such file or folder" in err


def test_a_run_or_a_folder_is_scored_against_a_folder_at_its_size(runs, command, tmp_path):
    eggs, others = folder_of_eggs(tmp_path / "a", range(45)), folder_of_eggs(tmp_path / "b", range(45, 90))
    tomatoes = folder_of_eggs(tmp_path / "c", range(45), size=48, name="Tomato")
    found = []
    for what in (eggs, tomatoes, runs[1].path):
        _, out, _ = command("score", what, "--against", others, "--metrics", "fd", "--json")
        found.append(json.loads(out))
    assert [one["measured_with"]["size"] for one in found] == ["3x32x32", "3x32x32", "1x14x14"]
    assert {one["measured_with"]["against"] for one in found} == {str(others)}
    near, far, farther = (one["values"]["fd"] for one in found)
    assert near < 5
    assert min(far, farther) > 5 * near


def test_images_of_the_same_name_are_compared_pixel_by_pixel(command, tmp_path):
    one, other = folder_of_eggs(tmp_path / "one", range(20)), tmp_path / "other"
    shutil.copytree(one, other)
    for file in other.iterdir():
        Image.open(file).point(lambda value: min(255, value + 10)).save(file)
    score = ("score", one, "--against", other, "--metrics")
    values = json.loads(command(*score, "l1,psnr,ssim", "--json")[1])["values"]
    assert values["l1"] == pytest.approx(20 / 255, rel=0.05)
    assert values["psnr"] == pytest.approx(20 * math.log10(255 / 10), rel=0.05)
    assert 0.8 < values["ssim"] < 1
    (other / "007.png").rename(other / "lone.png")
    code, _, err = command(*score, "l1")
    assert code == 3
    assert "l1 compare images of the same name, but '007' has no partner in both folders" in err


def test_a_conditional_run_is_asked_for_its_classes_too(command, data_dir, tmp_path):
    run = trained(tmp_path / "run", data_dir, "cgan_egg", data__size=14, data__channels=1, train__epochs=1)
    values = json.loads(command("score", run.path, "--json", "--device", "cpu")[1])["values"]
    assert 0 <= values["judge_accuracy"] <= 1
    assert values["class_fd"] == pytest.approx((values["fd of 3"] + values["fd of 5"]) / 2)


def test_runs_are_compared_in_one_table_the_best_first_and_on_one_sheet(runs, command, tmp_path):
    sheet, paths = tmp_path / "sheet.png", [run.path for run in runs]
    code, out, _ = command("compare", *paths, "-o", sheet, "--images", 100, "--device", "cpu")
    verdict, *table = out.splitlines()
    assert code == 0
    assert verdict.startswith("gan14-002 is better than gan14-001: its fd is ")
    assert table[0].split() == ["run", "model", "epoch", "fd", "coverage", "1-NN", "C_T", "support"]
    assert [line.split()[0] for line in table[1:3]] == [paths[1].name, paths[0].name]
    assert table[3] == "100 generated images of each run; real images get an fd of 1"
    assert table[-1] == f"{sheet}: images of the same 8 seeds or sources, one row for each run"
    with Image.open(sheet) as image:
        assert (image.width > 8 * 56, image.height > 2 * 56) == (True, True)


def test_a_comparison_fits_a_narrow_terminal_and_marks_diagnoses_and_other_images(
    runs, command, data_dir, tmp_path, monkeypatch
):
    changes = {"train__optimizer__lr": 0.3, "train__epochs": 14, "data__classes": ["4"]}
    other = trained(tmp_path / "dcgan28-017", data_dir, **changes)
    monkeypatch.setattr(terminal.out, "width", 80)
    code, out, _ = command("compare", runs[1].path, other.path, "-o", tmp_path / "sheet.png", "--device", "cpu")
    verdict, *lines = out.splitlines()
    assert code == 0
    assert "were measured on different images" in verdict
    table = next(index for index, line in enumerate(lines) if line.startswith("run "))
    assert [line.split()[0] for line in lines[table : table + 3]] == ["run", "gan14-002", "dcgan28-017"]
    assert [" *" in line for line in lines[table + 1 : table + 3]] == [False, True]
    assert max(map(len, lines[table : table + 3])) <= 80
    assert "dcgan28-017 ended with: diverged" in out
    assert "* measured on other images, or in another way, than the run named first; not comparable" in " ".join(lines)


def test_generated_images_are_drawn_beside_the_nearest_training_images(runs, command):
    code, out, _ = command("nearest", runs[1].path, "--device", "cpu")
    assert code == 0
    assert out.startswith("no sign of copies: C_T is +")
    assert f"{runs[1].path}/nearest.png: generated images on the left" in out.replace("\\", "/")
    with Image.open(runs[1].path / "nearest.png") as image:
        assert image.height > image.width  # eight rows of five


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ("score {run} --metrics fdd", 2, "--metrics fdd: unknown metric 'fdd'; did you mean 'fd'?"),
        ("score {run} --metrics ,", 2, "--metrics ,: unknown metric ','; known: accuracy,"),
        ("score {run} --metrics fid", 3, "gantool data fetch inception"),
        ("score {run} --metrics error", 2, "--metrics error: is about answers, but mlp makes images"),
        ("score {run} --metrics fd,l1", 2, "--metrics l1: compares images of the same name; name two"),
        ("score {run} --against nowhere", 3, "nowhere: no such folder; score compares"),
        ("score {eggs} --against nowhere", 3, "nowhere: no such folder; score compares a run, or a"),
        ("score {eggs} --against {empty}", 3, "{empty}: no images in it; a source is"),
        ("score {eggs} --against {eggs} --images 90", 2, "--images 90: a folder is measured with all of its images"),
        ("score {and} --images 90", 2, "--images 90: counts generated images, but dense makes none; leave it out"),
        ("score {and} --metrics fd", 2, "--metrics fd: is about images, but dense answers; use error, accuracy,"),
        ("score {and} --against {eggs}", 2, "compares images, but dense makes none; leave it out"),
        ("score {study}", 2, ": is damaged; restore a copy, or name one of its trials"),
        ("score nobody", 2, "nobody: no run of this name"),
        ("compare {run}", 2, "compare: 1 run given; name two or more"),
        ("compare {run} nobody", 2, "nobody: no run of this name"),
        ("compare {run} {run} -o {eggs}/000.png", 2, "already exists; name another file, or add --overwrite"),
        ("nearest {run} -o {eggs}/000.png", 2, "already exists; name another file, or add --overwrite"),
    ],
)
def test_a_mistake_is_reported_in_one_line(arguments, code, message, runs, command, data_dir, inside):
    places = {"run": runs[0].path, **{name: inside / name for name in ("empty", "study", "and")}}
    places["eggs"] = folder_of_eggs(inside / "eggs", range(3))
    for name in ("empty", "study"):
        places[name].mkdir()
    for name in ("recipe.yaml", "study.json"):
        (places["study"] / name).touch()
    if "{and}" in arguments:
        trained(places["and"], data_dir, "perceptron_and", data__source="and", data__classes=None, train__epochs=1)
    found, _, err = command(*arguments.format(**places).split())
    assert found == code
    *_, last = err.strip().splitlines()
    assert last.startswith("error: ")
    assert message.format(**places) in last
