"""What a run makes of files: translations in the size and mode of their sources, and answers."""

from __future__ import annotations

import csv

import numpy as np
import pytest
import torch
from gantool import batches, checkpoints, devices, load, models
from gantool.batches import ImageSpec
from gantool.cli import app
from gantool.data.sources.tables import TABLES
from gantool.errors import GantoolError
from gantool.inference import inputs
from gantool.recipe.load import dump
from gantool.runs import Run
from gantool.training import engine
from gantool.training.monitor import sheet
from PIL import Image
from typer.testing import CliRunner

from small import small

CPU = torch.device("cpu")
COLOURS = torch.tensor([[[200]], [[30]], [[90]]], dtype=torch.uint8)


def pictures(coloured, count=4):
    """Images of one value, grey or not, as a checkpoint keeps them."""
    one = COLOURS if coloured else torch.full((3, 1, 1), 77, dtype=torch.uint8)
    return one.expand(count, 3, 8, 8).contiguous()


def saved(path, name, spec, examples, **changes):
    """A run of fresh weights, as training would have saved it."""
    recipe = engine.open_recipe(name, changes)
    run = Run.create(dump(recipe), name=name, out=path)
    with devices.rng_scope(CPU, devices.rng_states(CPU, 0)):
        model = models.build(recipe, spec)
    content = {
        "recipe": dump(recipe),
        "spec": batches.plain(spec),
        "classes": list(spec.classes),
        "epoch": 3,
        "model": model.state_dict(),
        "examples": examples,
    }
    checkpoints.save(run.checkpoints / "best.pt", content)
    return run


def pix2pix(path, *, grey_sources=False):
    ask = {"seeds": [0, 1, 2, 3], "labels": [0] * 4, "sources": pictures(not grey_sources), "targets": pictures(True)}
    changes = small("pix2pix")
    spec = ImageSpec(3, changes["data.size"], changes["data.size"], ("edges", "egg"))
    return saved(path, "pix2pix", spec, ask, **changes)


def cyclegan(path, channels=3):
    sources = torch.cat([pictures(True), pictures(True)])[:, :channels]
    ask = {"seeds": list(range(8)), "labels": [1] * 4 + [0] * 4, "sources": sources, "targets": None}
    changes = {**small("cyclegan"), "data.channels": channels}
    spec = ImageSpec(channels, changes["data.size"], changes["data.size"], ("brown", "blue"))
    return saved(path, "cyclegan", spec, ask, **changes)


def noise(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def run_cli(*words):
    return CliRunner().invoke(app, [str(word) for word in words])


@pytest.mark.parametrize("size", [(1, 1), (7, 5), (8, 8), (33, 50), (64, 64), (101, 17)])
@pytest.mark.parametrize("make", [pix2pix, cyclegan])
def test_any_size_comes_back_in_its_own_size(make, size, tmp_path):
    run = make(tmp_path / "run")
    Image.fromarray(noise(size[1], size[0], 3)).save(tmp_path / "a.png")
    told = run_cli("sample", run.path, "--input", tmp_path / "a.png", "-o", tmp_path / "b.png")
    assert told.exit_code == 0, told.output
    with Image.open(tmp_path / "b.png") as made:
        assert (made.size, made.mode) == (size, "RGB")


@pytest.mark.parametrize(
    ("mode", "shape", "wanted"),
    [("RGB", (9, 12, 3), "RGB"), ("L", (9, 12), "L"), ("RGBA", (9, 12, 4), "RGBA"), ("LA", (9, 12, 2), "LA")],
)
def test_a_image_keeps_its_mode_and_what_is_transparent(mode, shape, wanted, tmp_path):
    pixels = noise(*shape)
    Image.fromarray(pixels, mode).save(tmp_path / "a.png")
    trained = load(cyclegan(tmp_path / "run").path, device="cpu")
    files = inputs.targets(trained, tmp_path / "a.png", tmp_path / "out", [0], single=False)
    assert list(inputs.translate(trained, files, None)) == []
    with Image.open(tmp_path / "out" / "a.png") as made:
        assert (made.mode, made.size) == (wanted, (12, 9))
        if "A" in mode:
            assert np.array_equal(np.asarray(made)[..., -1], pixels[..., -1])


def test_a_grey_image_becomes_coloured_where_the_run_learned_to_colour(tmp_path):
    Image.fromarray(noise(9, 12)).save(tmp_path / "a.png")
    for grey, mode in ((True, "RGB"), (False, "L")):
        run = pix2pix(tmp_path / f"run-{grey}", grey_sources=grey)
        assert (
            run_cli(
                "sample", run.path, "--input", tmp_path / "a.png", "-o", tmp_path / "b.png", "--overwrite"
            ).exit_code
            == 0
        )
        with Image.open(tmp_path / "b.png") as made:
            assert made.mode == mode


def test_a_model_of_grey_images_gives_coloured_ones_back_as_grey_in_three_channels(tmp_path):
    Image.fromarray(noise(9, 12, 3)).save(tmp_path / "a.png")
    assert (
        run_cli(
            "sample", cyclegan(tmp_path / "run", 1).path, "--input", tmp_path / "a.png", "-o", tmp_path / "b.png"
        ).exit_code
        == 0
    )
    with Image.open(tmp_path / "b.png") as made:
        assert made.mode == "RGB"
        assert not np.ptp(np.asarray(made).astype(int), axis=2).any()


def test_what_is_turned_by_its_camera_is_translated_upright(tmp_path):
    upright = Image.fromarray(noise(8, 16, 3))
    upright.save(tmp_path / "a.png")
    exif = Image.Exif()
    exif[0x0112] = 6  # it has to be turned by 270 degrees
    upright.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "b.png", exif=exif)
    run = cyclegan(tmp_path / "run")
    made = []
    for name in "ab":
        assert (
            run_cli("sample", run.path, "--input", tmp_path / f"{name}.png", "-o", tmp_path / f"{name}2.png").exit_code
            == 0
        )
        with Image.open(tmp_path / f"{name}2.png") as picture:
            made.append(np.asarray(picture))
    assert np.array_equal(*made)


def test_a_image_of_the_trained_size_is_translated_as_training_does_it(tmp_path):
    trained = load(cyclegan(tmp_path / "run").path, device="cpu")
    side = trained.data.height
    pixels = noise(side, side, 3)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    files = inputs.targets(trained, tmp_path / "a.png", tmp_path / "out", [0], single=False)
    list(inputs.translate(trained, files, "blue"))
    source = torch.from_numpy(pixels.transpose(2, 0, 1)[None].copy()).float() / 127.5 - 1
    with torch.no_grad():
        wanted = trained.model.generator["a_to_b"](source)
    with Image.open(tmp_path / "out" / "a.png") as made:
        apart = np.asarray(made).astype(int) - ((wanted[0].permute(1, 2, 0).numpy() + 1) * 127.5 + 0.5).astype(int)
    assert np.abs(apart).max() <= 1


def test_class_names_the_direction_and_the_second_is_the_usual_one(tmp_path):
    run = cyclegan(tmp_path / "run")
    Image.fromarray(noise(12, 12, 3)).save(tmp_path / "a.png")
    made = {}
    for name in (None, "blue", "brown"):
        words = ["--class", name] if name else []
        target = tmp_path / f"{name}.png"
        assert run_cli("sample", run.path, "--input", tmp_path / "a.png", "-o", target, *words).exit_code == 0
        made[name] = target.read_bytes()
    assert made[None] == made["blue"] != made["brown"]


def test_a_folder_becomes_a_folder_and_what_is_no_image_is_named(tmp_path):
    folder = tmp_path / "in"
    (folder / "deeper").mkdir(parents=True)
    for name in ("a.png", "a.jpg", "deeper/c.png"):
        Image.fromarray(noise(9, 9, 3)).save(folder / name)
    (folder / "notes.txt").write_text("no image")
    run = cyclegan(tmp_path / "run")
    told = run_cli("sample", run.path, "--input", folder, "-o", tmp_path / "out")
    assert told.exit_code == 0
    assert "3 images, translated into blue in epoch 3" in told.output
    assert "notes.txt: skipped (not an image)" in told.output.replace("\n", "")
    found = sorted(path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*.png"))
    assert found == ["a-png.png", "a.png", "deeper/c.png"]


def test_each_seed_is_another_translation_where_noise_is_in_it(tmp_path):
    run = pix2pix(tmp_path / "run")
    Image.fromarray(noise(8, 8, 3)).save(tmp_path / "a.png")
    assert (
        run_cli("sample", run.path, "--input", tmp_path / "a.png", "--seeds", "0-1", "-o", tmp_path / "out").exit_code
        == 0
    )
    one, other = ((tmp_path / "out" / f"a-{seed}.png").read_bytes() for seed in (0, 1))
    assert one != other
    assert (
        run_cli("sample", run.path, "--input", tmp_path / "a.png", "--seeds", "1", "-o", tmp_path / "b.png").exit_code
        == 0
    )
    assert (tmp_path / "b.png").read_bytes() == other


def test_nothing_is_written_over_without_being_asked(tmp_path):
    run = cyclegan(tmp_path / "run")
    Image.fromarray(noise(8, 8, 3)).save(tmp_path / "a.png")
    (tmp_path / "b.png").write_text("mine")
    told = run_cli("sample", run.path, "--input", tmp_path / "a.png", "-o", tmp_path / "b.png")
    assert isinstance(told.exception, GantoolError)
    assert "already exists; name another file, or add --overwrite" in str(told.exception)
    assert (tmp_path / "b.png").read_text() == "mine"


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("--input", "nowhere"), 3, "--input nowhere: no such file or folder"),
        (("--input", "empty"), 3, "--input empty: no files in it; name an image or a folder of images"),
        (("--input", "text.txt"), 3, "--input text.txt: none of its 1 files can be read as an image"),
        (("--input", "two", "-o", "x.png"), 2, "-o x.png: several images are made; name a folder for them, without"),
        (("--input", "two", "--class", "red"), 2, "--class red: unknown class 'red'; known: blue, brown"),
    ],
)
def test_what_cannot_be_translated_is_told_in_one_line(words, code, message, inside):
    run = cyclegan(inside / "run")
    (inside / "empty").mkdir()
    (inside / "two").mkdir()
    (inside / "text.txt").write_text("no image")
    for name in "ab":
        Image.fromarray(noise(8, 8, 3)).save(inside / "two" / f"{name}.png")
    told = run_cli("sample", run.path, *words)
    assert isinstance(told.exception, GantoolError)
    assert str(told.exception).startswith(message)
    assert told.exception.exit_code == code
    assert not (inside / "x.png").exists()


@pytest.mark.parametrize(("make", "words", "rows"), [(pix2pix, (), [0, 2]), (cyclegan, ("--class", "brown"), [4, 6])])
def test_seeds_number_the_examples_of_a_class_and_are_drawn_beside_their_sources(make, words, rows, tmp_path):
    run, target = make(tmp_path / "run"), tmp_path / "some.png"
    assert run_cli("sample", run.path, "--seeds", "0,2", *words, "-o", target).exit_code == 0
    trained = load(run.path, device="cpu")
    asked = trained.shown.rows(rows)
    with Image.open(target) as picture:
        assert picture.tobytes() == sheet(asked, trained.images(asked), trained.data.classes).tobytes()
        assert tuple(COLOURS.flatten().tolist()) in {colour for _, colour in picture.getcolors(1 << 16)}, "a source"


def test_a_model_of_noise_takes_no_input(tmp_path):
    spec = ImageSpec(1, 14, 14, ("0", "1"))
    run = saved(tmp_path / "run", "gan14", spec, None)
    told = run_cli("sample", run.path, "--input", tmp_path)
    assert str(told.exception).endswith("mlp makes images from noise; leave it out")


# Answers


def table_run(path, name, source):
    table = TABLES[source].read(path, 0.2)
    examples = {
        "inputs": torch.from_numpy(table.inputs[:4]),
        "labels": torch.from_numpy(table.labels[:4]),
        "texts": list(table.texts[:4]),
    }
    return saved(path, name, table.spec, examples), table


@pytest.mark.parametrize(
    ("name", "source"), [("mlp_xor", "xor"), ("lstm_sentiment", "sentences"), ("dnn_income", "income")]
)
def test_a_run_answers_the_examples_that_it_keeps_and_tells_what_is_right(name, source, tmp_path):
    run, table = table_run(tmp_path / "run", name, source)
    rows = inputs.predictions(load(run.path, device="cpu"), None)
    assert [row.asked for row in rows] == list(table.texts[:4])
    assert [row.right for row in rows] == [table.spec.classes[label] for label in table.labels[:4]]
    assert all(row.answer in table.spec.classes and 0.5 <= row.probability <= 1 for row in rows)
    told = run_cli("sample", run.path)
    assert told.exit_code == 0
    assert "probability" in told.output


def test_a_table_of_ones_own_is_answered_row_by_row_into_a_file_of_its_own(tmp_path):
    run, _ = table_run(tmp_path / "run", "mlp_xor", "xor")
    (tmp_path / "new.csv").write_text("b,a\n1,0\n0,0\n1,1\n")
    told = run_cli("sample", run.path, "--input", tmp_path / "new.csv", "-o", tmp_path / "answers.csv")
    assert told.exit_code == 0, told.output
    with (tmp_path / "answers.csv").open() as file:
        rows = list(csv.DictReader(file))
    trained = load(run.path, device="cpu")
    wanted = trained.answer(torch.tensor([[0.0, 1.0], [0.0, 0.0], [1.0, 1.0]])).max(1)
    assert [float(row["probability"]) for row in rows] == pytest.approx(wanted.values.tolist(), abs=1e-5)
    assert [row["answer"] for row in rows] == [TABLES["xor"].spec.classes[index] for index in wanted.indices.tolist()]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("-o", "x.png"), "-o x.png: dense's answers are a table; name a file that ends in .csv"),
        (("--class", "1"), "--class 1: dense answers, and makes no images; leave it out"),
        (("--seeds", "0-3"), "--seeds 0-3: dense answers, and makes no images; leave it out"),
    ],
)
def test_what_asks_a_classifier_for_images_is_refused(words, message, inside):
    run, _ = table_run(inside / "run", "mlp_xor", "xor")
    told = run_cli("sample", run.path, *words)
    assert (type(told.exception), str(told.exception)) == (GantoolError, message)
    assert not (inside / "x.png").exists()


def test_sentences_of_ones_own_are_answered_line_by_line(tmp_path):
    run, _ = table_run(tmp_path / "run", "lstm_sentiment", "sentences")
    (tmp_path / "new.txt").write_text("I love it\n\nwhat an awful day\n")
    told = run_cli("sample", run.path, "--input", tmp_path / "new.txt")
    assert told.exit_code == 0
    assert "I love it" in told.output
    assert "what an awful day" in told.output


def test_images_are_answered_whatever_their_size(tmp_path):
    spec = ImageSpec(1, 16, 16, ("0", "1", "2"))
    examples = {
        "inputs": torch.zeros(2, 1, 16, 16, dtype=torch.uint8),
        "labels": torch.tensor([0, 2]),
        "texts": ["a", "b"],
    }
    run = saved(tmp_path / "run", "cnn_fashion16", spec, examples)
    folder = tmp_path / "in"
    folder.mkdir()
    Image.fromarray(noise(40, 33, 3)).save(folder / "large.png")
    (folder / "x.txt").write_text("no image")
    rows = inputs.predictions(load(run.path, device="cpu"), folder)
    assert [row.asked for row in rows] == ["large.png"]
    with pytest.raises(Exception, match=r"x.txt: not an image; name an image or a folder of images$"):
        inputs.predictions(load(run.path, device="cpu"), folder / "x.txt")


def test_what_answers_makes_no_images_and_what_makes_images_answers_nothing(tmp_path):
    run, _ = table_run(tmp_path / "run", "mlp_xor", "xor")
    with pytest.raises(Exception, match=r"dense answers, and makes no images; use gantool sample$"):
        load(run.path, device="cpu").sample([0])
    gan = saved(tmp_path / "gan", "gan14", ImageSpec(1, 14, 14, ("0",)), None)
    with pytest.raises(Exception, match=r"mlp makes images, and answers nothing$"):
        load(gan.path, device="cpu").answer(torch.zeros(1, 2))
    with pytest.raises(Exception, match=r"^--walk: pix2pix makes images from images, and has no latents to walk"):
        list(load(pix2pix(tmp_path / "p").path, device="cpu").walk([0, 1], 2))
