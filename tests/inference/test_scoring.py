"""`score`, `compare`, `nearest` and `explain`, as a person types them; on real digits and rendered eggs."""

from __future__ import annotations

import json
import math
import re
import shutil

import pytest
import torch
from gantool import cli, images, load
from gantool.data.sources.eggs import render
from gantool.images import to_float
from gantool.inference import compare
from gantool.recipe.load import dump
from gantool.runs import Run
from gantool.training import engine
from PIL import Image

from small import small

DIGITS = {
    "data.source": "digits",
    "data.classes": ["3", "5"],
    "train.batch_size": 32,
    "train.evaluate_images": 500,
    "train.evaluate_every": 100,
}


def trained(path, data_dir, name="gan14", **changes):
    recipe = engine.open_recipe(name, {**DIGITS, **{key.replace("__", "."): value for key, value in changes.items()}})
    run = Run.create(dump(recipe), name=recipe.name, out=path)
    for _ in engine.train(recipe, run, data_dir=data_dir, device="cpu"):
        pass
    return run


@pytest.fixture(scope="module")
def runs(tmp_path_factory, data_dir):
    """Two runs on the same images, the second trained for longer."""
    study = tmp_path_factory.mktemp("home") / "runs"
    return [
        trained(study / f"gan14-00{number}", data_dir, train__epochs=epochs) for number, epochs in ((1, 1), (2, 30))
    ]


def gantool(*arguments):
    """Run a command; gives its exit code."""
    try:
        cli.main([str(argument) for argument in arguments])
    except SystemExit as end:
        return end.code
    return 0


def folder_of_eggs(path, numbers, size=32, name="Egg"):
    path.mkdir()
    for number in numbers:
        Image.fromarray(render(name, number, size)).save(path / f"{number:03d}.png")
    return path


def test_a_run_is_scored_and_the_score_is_kept_with_all_that_it_was_measured_with(runs, data_dir, capsys):
    for _ in range(2):
        assert gantool("score", runs[1].path, "--data-dir", data_dir, "--json", "--device", "cpu") == 0
    found = json.loads(capsys.readouterr().out.partition("}\n{")[0] + "}")
    kept = [json.loads(line) for line in (runs[1].path / "scores.jsonl").read_text("utf-8").splitlines()]
    assert found.pop("verdict").startswith("fd is ")
    assert kept == [found, found]
    values, about = found["values"], found["measured_with"]
    weights = {"rand": 4, "texture": 1, "pretext": 2, "judge": 2}
    parts = [values[f"fd_{name}"] ** (weight / 9) for name, weight in weights.items()]
    assert values["fd"] == pytest.approx(math.prod(parts))
    assert 0 < values["fd_deviation"] < values["fd"]
    for name in ("kd", "coverage", "nearest_neighbour", "copying", "support", "precision",
                 "recall", "density", "inception_score"):  # fmt: skip
        assert values[name] is not None
    assert "judge_accuracy" not in values  # gan14 is told no class
    assert (about["real"], about["held_out"], about["fake"]) == (292, 73, 500)
    assert [name.partition("-")[0] for name in about["extractors"]] == ["rand", "texture", "pretext", "judge"]
    assert about["units"].keys() == weights.keys()
    assert values["fd"] > 1
    assert {"seed", "size", "epoch", "checkpoint", "floor_deviation"} <= about.keys()


def test_train_score_and_compare_tell_one_number_of_one_checkpoint(runs, data_dir, tmp_path, capsys):
    run = runs[1]
    logged = min(entry["metrics/fd"] for entry in run.entries() if "metrics/fd" in entry)
    assert gantool("score", run.path, "--metrics", "fd", "--data-dir", data_dir, "--json", "--device", "cpu") == 0
    found = json.loads(capsys.readouterr().out)
    rows = compare.compare(runs, tmp_path / "sheet.png", device="cpu", data_dir=data_dir)
    compared = next(row for row in rows if row.run == str(run.path))
    # `sample` computes in double precision, so that a pixel in a million is rounded the other way.
    assert found["values"]["fd"] == pytest.approx(logged, rel=1e-3)
    assert compared.values["fd"] == found["values"]["fd"]
    entry = next(entry for entry in run.entries() if entry.get("metrics/fd") == logged)
    assert found["measured_with"].items() >= entry["measured_with"].items()


def test_another_number_of_images_is_asked_for_by_a_flag_and_named_beside_the_number(runs, data_dir, tmp_path, capsys):
    given = ("--metrics", "fd", "--images", 300, "--data-dir", data_dir, "--device", "cpu")
    assert gantool("score", runs[1].path, *given) == 0
    assert "300 generated against 292 real images" in capsys.readouterr().out
    sheet = ("-o", tmp_path / "sheet.png")
    assert gantool("compare", *(run.path for run in runs), *sheet, *given[2:]) == 0
    assert "300 generated images of each run" in capsys.readouterr().out


def test_images_of_a_folder_and_answers_are_not_counted(data_dir, tmp_path, capsys):
    eggs = folder_of_eggs(tmp_path / "eggs", range(3))
    assert gantool("score", eggs, "--against", eggs, "--images", 300, "--data-dir", data_dir) == 2
    assert "--images 300: a folder is measured with all of its images; leave it out" in capsys.readouterr().err
    run = trained(tmp_path / "run", data_dir, "perceptron_and", data__source="and", data__classes=None, train__epochs=2)
    assert gantool("score", run.path, "--images", 300, "--data-dir", data_dir) == 2
    told = capsys.readouterr().err
    assert "--images 300: counts generated images, but dense makes none; leave it out" in told


def test_the_fd_of_the_first_version_can_still_be_had(runs, data_dir, capsys):
    given = ("--metrics", "fd,fd_v1", "--data-dir", data_dir, "--json", "--device", "cpu")
    assert gantool("score", runs[1].path, *given) == 0
    found = json.loads(capsys.readouterr().out)
    values, units = found["values"], found["measured_with"]["units"]
    raw = [values[f"fd_{name}"] * units[name] for name in ("rand", "pretext")]
    assert values["fd_v1"] == pytest.approx(math.sqrt(raw[0] * raw[1]), rel=1e-4)


def test_the_table_of_a_score_says_what_each_number_means_and_what_is_noise(runs, data_dir, capsys):
    assert gantool("score", runs[1].path, "--metrics", "fd,coverage", "--data-dir", data_dir, "--device", "cpu") == 0
    told = capsys.readouterr().out
    assert [line.split()[0] for line in told.splitlines()[3:9]] == [
        "fd",
        "fd_rand",
        "fd_texture",
        "fd_pretext",
        "fd_judge",
        "coverage",
    ]
    assert "lower is better" in told
    assert "500 generated against 292 real images of 1x14x14, 73 more held out" in told
    assert re.search(r"^fd +[\d.]+ ± [\d.]+ +1\.0", told, re.MULTILINE)
    assert "± is a standard deviation over other draws of images; differences of less than two are noise" in told
    assert "kd" not in told


def test_what_was_asked_for_and_cannot_be_had_is_named(runs, data_dir, capsys):
    assert gantool("score", runs[1].path, "--metrics", "judge_accuracy,fd", "--data-dir", data_dir) == 0
    told = capsys.readouterr().out
    assert told.splitlines()[-1] == "not measured, because classes or images are too few: judge_accuracy"
    assert gantool("score", runs[1].path, "--data-dir", data_dir) == 0
    assert "not measured" not in capsys.readouterr().out


def test_a_handful_of_images_has_no_floor_and_says_how_little_it_means(data_dir, tmp_path, capsys):
    few, others = folder_of_eggs(tmp_path / "few", range(3)), folder_of_eggs(tmp_path / "others", range(5, 25))
    assert gantool("score", others, "--against", few, "--data-dir", data_dir, "--json") == 0
    about = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)["measured_with"]
    assert about["floor_deviation"] is None
    assert gantool("score", others, "--against", few, "--data-dir", data_dir) == 0
    told = capsys.readouterr().out
    assert "nan" not in told
    assert "times its floor: with so few images this ranks generators, but does not measure quality" in told


def test_a_run_on_a_folder_is_scored_from_anywhere(data_dir, tmp_path, monkeypatch, capsys):
    folder_of_eggs(tmp_path / "eggs", range(30))
    monkeypatch.chdir(tmp_path)
    recipe = ["--set", "data.source=eggs/", "--set", "data.size=14", "--set", "train.epochs=1"]
    assert gantool("train", "gan14", *recipe, "--data-dir", data_dir, "--out", tmp_path / "run", "--device", "cpu") == 0
    told = capsys.readouterr().err
    assert "learning from 18 images; 12 more are held out; with fewer than 60 images fd ranks settings" in told
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert gantool("score", tmp_path / "run", "--metrics", "fd", "--data-dir", data_dir, "--device", "cpu") == 0
    shutil.rmtree(tmp_path / "eggs")
    assert gantool("score", tmp_path / "run", "--metrics", "fd", "--data-dir", data_dir, "--device", "cpu") == 3
    assert f"data.source: {tmp_path / 'eggs'}: no such file or folder" in capsys.readouterr().err


def test_a_run_is_scored_against_a_folder(runs, data_dir, tmp_path, capsys):
    eggs = folder_of_eggs(tmp_path / "eggs", range(30))
    assert gantool("score", runs[1].path, "--against", eggs, "--metrics", "fd", "--data-dir", data_dir, "--json") == 0
    far = json.loads(capsys.readouterr().out)
    assert far["measured_with"]["against"] == str(eggs)
    assert far["measured_with"]["real"] == 18
    assert far["values"]["fd"] > 20


def test_two_folders_are_compared_at_the_size_of_the_second(data_dir, tmp_path, capsys):
    eggs, others = folder_of_eggs(tmp_path / "a", range(80)), folder_of_eggs(tmp_path / "b", range(80, 160))
    tomatoes = folder_of_eggs(tmp_path / "c", range(80), size=48, name="Tomato")
    found = []
    for folder in (eggs, tomatoes):
        assert gantool("score", folder, "--against", others, "--data-dir", data_dir, "--json") == 0
        found.append(json.loads(capsys.readouterr().out))
    assert found[0]["measured_with"]["size"] == found[1]["measured_with"]["size"] == "3x32x32"
    assert found[0]["values"]["fd"] < 5
    assert found[1]["values"]["fd"] > 5 * found[0]["values"]["fd"]


def test_images_of_the_same_name_are_compared_pixel_by_pixel(data_dir, tmp_path, capsys):
    one = folder_of_eggs(tmp_path / "one", range(20))
    other = tmp_path / "other"
    shutil.copytree(one, other)
    for file in other.iterdir():
        Image.open(file).point(lambda value: min(255, value + 10)).save(file)
    assert gantool("score", one, "--against", other, "--metrics", "l1,psnr,ssim", "--data-dir", data_dir, "--json") == 0
    values = json.loads(capsys.readouterr().out)["values"]
    assert values["l1"] == pytest.approx(20 / 255, rel=0.05)
    assert values["psnr"] == pytest.approx(20 * math.log10(255 / 10), rel=0.05)
    assert 0.8 < values["ssim"] < 1
    (other / "007.png").rename(other / "lone.png")
    assert gantool("score", one, "--against", other, "--metrics", "l1", "--data-dir", data_dir) == 3
    assert "l1 compare images of the same name, but '007' has no partner in both folders" in capsys.readouterr().err


def test_a_conditional_run_is_asked_for_its_classes_too(data_dir, tmp_path, capsys):
    changes = {"data__source": "eggs", "data__classes": ["Egg", "Tomato"], "data__size": 16, "train__epochs": 2}
    run = trained(tmp_path / "run", data_dir, "cgan_egg", **changes)
    assert gantool("score", run.path, "--data-dir", data_dir, "--json", "--device", "cpu") == 0
    values = json.loads(capsys.readouterr().out)["values"]
    assert 0 <= values["judge_accuracy"] <= 1
    assert values["class_fd"] == pytest.approx((values["fd of Egg"] + values["fd of Tomato"]) / 2)


def test_runs_are_compared_in_one_table_the_best_first_and_on_one_sheet(runs, data_dir, tmp_path, capsys):
    sheet = tmp_path / "sheet.png"
    paths = [run.path for run in runs]
    assert gantool("compare", *paths, "-o", sheet, "--data-dir", data_dir, "--device", "cpu") == 0
    told = capsys.readouterr().out.splitlines()
    best, other = paths[1].name, paths[0].name
    assert re.match(rf"{best} is better than {other}: its fd is \d+% lower than ", told[0])
    assert told[1].split() == ["run", "model", "epoch", "fd", "coverage", "1-NN", "C_T", "support"]
    assert told[4] == "500 generated images of each run; real images get an fd of 1"
    assert [line.split()[0] for line in told[2:4]] == [best, other]
    assert told[-1] == f"{sheet}: images of the same 8 seeds or sources, one row for each run"
    with Image.open(sheet) as picture:
        assert picture.width > 8 * 56
        assert picture.height > 2 * 56


def test_translations_are_compared_below_their_sources_which_runs_of_the_same_data_share(data_dir, tmp_path):
    quick = {**small("pix2pix"), "data.source": "egg_edges", "data.classes": None, "train.batch_size": 100}
    pair = [
        trained(tmp_path / f"{seed}", data_dir, "pix2pix", **quick, train__epochs=1, train__seed=seed)
        for seed in (1, 2)
    ]
    path = tmp_path / "sheet.png"
    rows = compare.compare(pair, path, device="cpu", data_dir=data_dir, columns=3)
    best = [load(row.run, device="cpu") for row in rows]
    sources = to_float(best[0].shown.sources[:3])
    assert torch.equal(sources, to_float(best[1].shown.sources[:3]))
    lines = [("source", sources), *((row.name, one.sample(range(3))) for row, one in zip(rows, best, strict=True))]
    captions = [text for name, _ in lines for text in (name, "", "")]
    expected = images.grid(torch.cat([line for _, line in lines]), columns=3, captions=captions)
    with Image.open(path) as picture:
        assert picture.tobytes() == expected.tobytes()


def test_sources_that_differ_are_drawn_for_each_run_and_none_for_images_from_noise():
    one, other = torch.zeros(1, 1, 2, 2), torch.ones(1, 1, 2, 2)
    runs = [("a", one, one), ("b", one, one), ("c", one, other), ("d", one, None), ("e", one, other)]
    found = [name for name, _ in compare._lines(runs)]
    assert found == ["source", "a", "b", "source", "c", "d", "source", "e"]


def test_a_comparison_fits_a_narrow_terminal_and_names_what_runs_ended_with(data_dir, tmp_path, capsys, monkeypatch):
    from gantool import terminal

    changes = {"train__optimizer__lr": 0.3, "train__epochs": 8, "train__evaluate_every": 1}
    run = trained(tmp_path / "dcgan28-017", data_dir, **changes)
    monkeypatch.setattr(terminal.out, "width", 80)
    sheet = tmp_path / "sheet.png"
    assert gantool("compare", run.path, run.path, "-o", sheet, "--data-dir", data_dir, "--device", "cpu") == 0
    verdict, *told = capsys.readouterr().out.splitlines()
    assert verdict.startswith("cannot tell whether ")
    assert [line.split()[0] for line in told[:3]] == ["run", "dcgan28-017", "dcgan28-017"]
    assert max(map(len, told[:3])) <= 80
    assert told[4].startswith("dcgan28-017 ended with: diverged")


def test_runs_of_other_images_are_marked_as_not_comparable(runs, data_dir, tmp_path, capsys):
    other = trained(tmp_path / "other", data_dir, train__epochs=1, data__classes=["4"])
    sheet = tmp_path / "sheet.png"
    assert gantool("compare", runs[1].path, other.path, "-o", sheet, "--data-dir", data_dir, "--device", "cpu") == 0
    told = capsys.readouterr().out
    assert "* measured on other images, or in another way, than the run named first; not comparable" in told
    assert "were measured on different images: their values cannot be compared" in told.splitlines()[0]
    assert [" *" in line for line in told.splitlines()[2:4]] == [False, True]
    assert told.splitlines()[3].startswith("other")


def test_generated_images_are_drawn_beside_the_nearest_training_images(runs, data_dir, capsys):
    assert gantool("nearest", runs[1].path, "--data-dir", data_dir, "--device", "cpu") == 0
    told = capsys.readouterr().out
    assert told.startswith("no sign of copies: C_T is +")
    assert "of the generated images are almost equal to a training image" in told
    assert f"{runs[1].path}/nearest.png: generated images on the left" in told.replace("\\", "/")
    with Image.open(runs[1].path / "nearest.png") as picture:
        assert picture.height > picture.width  # eight rows of five


def test_scoring_changes_nobodys_random_numbers(runs, data_dir):
    before = torch.get_rng_state()
    assert gantool("score", runs[0].path, "--data-dir", data_dir, "--device", "cpu") == 0
    assert gantool("nearest", runs[0].path, "--data-dir", data_dir, "--device", "cpu") == 0
    assert torch.equal(before, torch.get_rng_state())


def test_inception_needs_its_weights_which_the_message_tells_how_to_get(runs, data_dir, capsys):
    assert gantool("score", runs[0].path, "--metrics", "fid", "--data-dir", data_dir, "--device", "cpu") == 3
    assert "gantool data fetch inception" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["score", "{run}", "--metrics", "fdd"], 2, "error: --metrics fdd: unknown metric 'fdd'; did you mean 'fd'?"),
        (["score", "{run}", "--metrics", ""], 2, "error: --metrics : unknown metric ''; known: accuracy,"),
        (["score", "{run}", "--against", "nowhere"], 3, "error: nowhere: no such folder; score compares"),
        (["score", "{eggs}", "--against", "nowhere"], 3, "error: nowhere: no such folder; score compares a run, or a"),
        (["score", "{eggs}", "--against", "{empty}"], 3, "error: {empty}: no files in it; a source is"),
        (
            ["score", "{run}", "--metrics", "fd,l1"],
            2,
            "error: --metrics l1: compares images of the same name; name two",
        ),
        (["score", "{study}"], 2, ": is damaged; restore a copy, or name one of its trials"),
        (["score", "nobody"], 2, "error: nobody: no run of this name"),
        (["compare", "{run}"], 2, "error: compare: 1 run given; name two or more"),
        (["compare", "{run}", "nobody"], 2, "error: nobody: no run of this name"),
        (["compare", "{run}", "{run}", "-o", "{eggs}/000.png"], 2, "already exists; name another file, or add"),
        (["nearest", "{run}", "-o", "{eggs}/000.png"], 2, "already exists; name another file, or add --overwrite"),
        (["explain", "colapse"], 2, "error: unknown diagnosis 'colapse'; did you mean 'mode-collapse'?"),
    ],
)
def test_what_cannot_be_measured_is_said_in_one_line(arguments, code, message, runs, data_dir, inside, capsys):
    places = {"run": runs[0].path, "eggs": folder_of_eggs(inside / "eggs", range(3)), "empty": inside / "empty"}
    places["empty"].mkdir()
    places["study"] = inside / "study"
    places["study"].mkdir()
    for name in ("recipe.yaml", "study.json"):
        (places["study"] / name).touch()
    given = [argument.format(**places) for argument in arguments]
    given += ["--data-dir", str(data_dir)] if given[0] != "explain" else []
    assert gantool(*given) == code
    told = capsys.readouterr().err.strip().splitlines()
    assert message.format(**places) in told[-1]


def test_every_diagnosis_is_listed_and_explained(capsys):
    from gantool.training import diagnoses

    assert gantool("explain") == 0
    listed = capsys.readouterr().out
    for code in diagnoses.CODES:
        assert code in listed
        assert gantool("explain", code) == 0
        assert capsys.readouterr().out.strip() == diagnoses.explain(code)
