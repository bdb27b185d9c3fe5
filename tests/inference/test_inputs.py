"""Translations in the size and mode of their sources, and answers to files."""

from __future__ import annotations

import csv

import numpy as np
import pytest
import torch
from gantool import load
from gantool.batches import ImageSpec
from gantool.cli import app
from gantool.data.sources.tables import TABLES
from gantool.errors import GantoolError
from gantool.inference import inputs
from gantool.training import engine
from gantool.training.monitor import sheet
from PIL import Image
from typer.testing import CliRunner

from refusals import refusal
from small import small
from trained import untrained

COLOURS = torch.tensor([[[200]], [[30]], [[90]]], dtype=torch.uint8)


def examples_of(coloured, size, count=4):
    """Images of one value, grey or not, as a checkpoint keeps them."""
    one = COLOURS if coloured else torch.full((3, 1, 1), 77, dtype=torch.uint8)
    return one.expand(count, 3, size, size).contiguous()


def translator(path, name, request, changes, channels=3, classes=("brown", "blue")):
    changes = {**small(name), **changes}
    spec = ImageSpec(channels, changes["data.size"], changes["data.size"], classes)
    return untrained(path, engine.open_recipe(name, changes), spec, request)


def pix2pix(path, *, grey_sources=False):
    size = small("pix2pix")["data.size"]
    sources, targets = examples_of(not grey_sources, size), examples_of(True, size)
    request = {"seeds": [0, 1, 2, 3], "labels": [0] * 4, "sources": sources, "targets": targets}
    return translator(path, "pix2pix", request, {}, classes=("edges", "egg"))


def cyclegan(path, channels=3):
    sources = examples_of(True, small("cyclegan")["data.size"], 8)[:, :channels]
    request = {"seeds": list(range(8)), "labels": [1] * 4 + [0] * 4, "sources": sources, "targets": None}
    return translator(path, "cyclegan", request, {"data.channels": channels}, channels)


def table_run(path, name, source):
    table = TABLES[source].read(path, 0.2)
    inputs, labels = torch.from_numpy(table.inputs[:4]), torch.from_numpy(table.labels[:4])
    examples = {"inputs": inputs, "labels": labels, "texts": list(table.texts[:4])}
    return untrained(path, engine.open_recipe(name), table.spec, examples), table


def gan14(path):
    return untrained(path, engine.open_recipe("gan14"), ImageSpec(1, 14, 14, ("0", "1")))


def noise(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def sample(run, *words):
    """`gantool sample` in this process."""
    return CliRunner().invoke(app, ["sample", str(run.path), *map(str, words)])


def translated(run, source, target, *words):
    result = sample(run, "--input", source, "-o", target, *words)
    assert result.exit_code == 0, result.output
    with Image.open(target) as made:
        return made.copy()


@pytest.mark.parametrize("size", [(1, 1), (7, 5), (64, 64), (101, 17)])
@pytest.mark.parametrize("make", [pix2pix, cyclegan])
def test_an_image_of_any_size_keeps_its_size(make, size, tmp_path):
    Image.fromarray(noise(size[1], size[0], 3)).save(tmp_path / "a.png")
    made = translated(make(tmp_path / "run"), tmp_path / "a.png", tmp_path / "b.png")
    assert (made.size, made.mode) == (size, "RGB")


@pytest.mark.parametrize(
    ("mode", "shape"), [("RGB", (9, 12, 3)), ("L", (9, 12)), ("RGBA", (9, 12, 4)), ("LA", (9, 12, 2))]
)
def test_an_image_keeps_its_mode_and_its_transparency(mode, shape, tmp_path):
    pixels = noise(*shape)
    Image.fromarray(pixels, mode).save(tmp_path / "a.png")
    made = translated(cyclegan(tmp_path / "run"), tmp_path / "a.png", tmp_path / "b.png")
    assert (made.mode, made.size) == (mode, (12, 9))
    if "A" in mode:
        assert np.array_equal(np.asarray(made)[..., -1], pixels[..., -1])


def test_grey_images_are_coloured_only_by_a_run_that_learned_it_and_a_grey_run_makes_grey(tmp_path):
    Image.fromarray(noise(9, 12)).save(tmp_path / "grey.png")
    Image.fromarray(noise(9, 12, 3)).save(tmp_path / "colour.png")
    for grey, mode in ((True, "RGB"), (False, "L")):
        run = pix2pix(tmp_path / f"run-{grey}", grey_sources=grey)
        assert translated(run, tmp_path / "grey.png", tmp_path / f"{mode}.png").mode == mode
    made = translated(cyclegan(tmp_path / "run", 1), tmp_path / "colour.png", tmp_path / "b.png")
    assert made.mode == "RGB"
    assert not np.ptp(np.asarray(made).astype(int), axis=2).any()


def test_an_image_that_its_camera_turned_is_translated_upright(tmp_path):
    upright, exif = Image.fromarray(noise(8, 16, 3)), Image.Exif()
    exif[0x0112] = 6  # it has to be turned by 270 degrees
    upright.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "a.png", exif=exif)
    assert translated(cyclegan(tmp_path / "run"), tmp_path / "a.png", tmp_path / "b.png").size == (16, 8)


def test_an_image_of_the_trained_size_is_translated_as_training_does_it(tmp_path):
    run = cyclegan(tmp_path / "run")
    trained = load(run.path, device="cpu")
    pixels = noise(trained.data.height, trained.data.height, 3)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    made = translated(run, tmp_path / "a.png", tmp_path / "b.png", "--class", "blue")
    source = torch.from_numpy(pixels.transpose(2, 0, 1)[None].copy()).float() / 127.5 - 1
    with torch.no_grad():
        wanted = trained.model.generator["a_to_b"](source)
    wanted = ((wanted[0].permute(1, 2, 0).numpy() + 1) * 127.5 + 0.5).astype(int)
    assert np.abs(np.asarray(made).astype(int) - wanted).max() <= 1
    # The second class is the default, and the first one the other direction.
    assert np.array_equal(translated(run, tmp_path / "a.png", tmp_path / "c.png"), made)
    assert not np.array_equal(translated(run, tmp_path / "a.png", tmp_path / "d.png", "--class", "brown"), made)


def test_a_folder_becomes_a_folder_and_files_that_are_no_images_are_named(tmp_path, logged):
    folder = tmp_path / "in"
    (folder / "deeper").mkdir(parents=True)
    for name in ("a.png", "a.jpg", "deeper/c.png"):
        Image.fromarray(noise(9, 9, 3)).save(folder / name)
    (folder / "notes.txt").write_text("no image")
    result = sample(cyclegan(tmp_path / "run"), "--input", folder, "-o", tmp_path / "out")
    assert result.exit_code == 0
    assert "3 images, translated into blue in epoch 7" in result.output
    assert f"{folder / 'notes.txt'}: skipped (not an image)" in logged
    found = sorted(path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*.png"))
    assert found == ["a-png.png", "a.png", "deeper/c.png"]


def test_each_seed_is_another_translation_if_the_model_takes_noise(tmp_path):
    run = pix2pix(tmp_path / "run")
    Image.fromarray(noise(8, 8, 3)).save(tmp_path / "a.png")
    assert sample(run, "--input", tmp_path / "a.png", "--seeds", "0-1", "-o", tmp_path / "out").exit_code == 0
    one, other = (Image.open(tmp_path / "out" / f"a-{seed}.png").tobytes() for seed in (0, 1))
    assert one != other
    assert translated(run, tmp_path / "a.png", tmp_path / "b.png", "--seeds", "1").tobytes() == other


@pytest.mark.parametrize(("make", "words", "rows"), [(pix2pix, (), [0, 2]), (cyclegan, ("--class", "brown"), [4, 6])])
def test_seeds_number_the_examples_of_a_class_which_are_drawn_beside_their_sources(make, words, rows, tmp_path):
    run, target = make(tmp_path / "run"), tmp_path / "some.png"
    assert sample(run, "--seeds", "0,2", *words, "-o", target).exit_code == 0
    trained = load(run.path, device="cpu")
    request = trained.shown.rows(rows)
    with Image.open(target) as image:
        assert image.tobytes() == sheet(request, trained.images(request), trained.data.classes).tobytes()
        assert tuple(COLOURS.flatten().tolist()) in {colour for _, colour in image.getcolors(1 << 16)}, "a source"


def test_a_class_without_an_example_is_reported(tmp_path):
    request = {"seeds": [0], "labels": [1], "sources": examples_of(True, small("cyclegan")["data.size"], 1)}
    run = translator(tmp_path / "run", "cyclegan", request | {"targets": None}, {})
    message = "--class brown: the run keeps no image to make it from; name one with --input"
    assert refusal(load(run.path, device="cpu").sample, [0], "brown", code=2) == message


@pytest.mark.parametrize(
    ("name", "source"), [("mlp_xor", "xor"), ("lstm_sentiment", "sentences"), ("dnn_income", "income")]
)
def test_a_classifier_answers_the_examples_that_it_keeps(name, source, tmp_path):
    run, table = table_run(tmp_path / "run", name, source)
    rows = inputs.predictions(load(run.path, device="cpu"), None)
    assert [row.input for row in rows] == list(table.texts[:4])
    assert [row.right for row in rows] == [table.spec.classes[label] for label in table.labels[:4]]
    assert all(row.answer in table.spec.classes and 0.5 <= row.probability <= 1 for row in rows)
    assert "probability" in sample(run).output


def test_a_table_of_ones_own_is_answered_row_by_row_into_a_file(tmp_path):
    run, _ = table_run(tmp_path / "run", "mlp_xor", "xor")
    (tmp_path / "new.csv").write_text("b,a\n1,0\n0,0\n1,1\n")
    result = sample(run, "--input", tmp_path / "new.csv", "-o", tmp_path / "answers.csv")
    assert result.exit_code == 0, result.output
    with (tmp_path / "answers.csv").open() as file:
        rows = list(csv.DictReader(file))
    wanted = load(run.path, device="cpu").answer(torch.tensor([[0.0, 1.0], [0.0, 0.0], [1.0, 1.0]])).max(1)
    assert [float(row["probability"]) for row in rows] == pytest.approx(wanted.values.tolist(), abs=1e-5)
    assert [row["answer"] for row in rows] == [TABLES["xor"].spec.classes[index] for index in wanted.indices.tolist()]


def test_sentences_are_answered_line_by_line_and_images_of_any_size(tmp_path):
    run, _ = table_run(tmp_path / "run", "lstm_sentiment", "sentences")
    (tmp_path / "new.txt").write_text("I love it\n\nwhat an awful day\n")
    rows = inputs.predictions(load(run.path, device="cpu"), tmp_path / "new.txt")
    assert [row.input for row in rows] == ["I love it", "what an awful day"]
    examples = {
        "inputs": torch.zeros(2, 1, 16, 16, dtype=torch.uint8),
        "labels": torch.tensor([0, 2]),
        "texts": ["a", "b"],
    }
    cnn = untrained(tmp_path / "cnn", engine.open_recipe("cnn_fashion16"), ImageSpec(1, 16, 16, tuple("012")), examples)
    trained = load(cnn.path, device="cpu")
    folder = tmp_path / "in"
    folder.mkdir()
    Image.fromarray(noise(40, 33, 3)).save(folder / "large.png")
    (folder / "x.txt").write_text("no image")
    assert [row.input for row in inputs.predictions(trained, folder)] == ["large.png"]
    with pytest.raises(GantoolError, match=r"x.txt: not an image; name an image or a folder of images$"):
        inputs.predictions(trained, folder / "x.txt")


@pytest.mark.parametrize(
    ("name", "words", "code", "message"),
    [
        ("cyclegan", "--input nowhere", 3, "--input nowhere: no such file or folder"),
        ("cyclegan", "--input empty", 3, "--input empty: no files in it; name an image or a folder of images"),
        ("cyclegan", "--input text.txt", 3, "--input text.txt: none of its 1 files can be read as an image"),
        ("cyclegan", "--input two -o x.png", 2, "-o x.png: several images are made; name a folder for them, without"),
        ("cyclegan", "--input two --class red", 2, "--class red: unknown class 'red'; known: blue, brown"),
        ("cyclegan", "--input two/a.png -o mine.png", 2, "mine.png: already exists; name another file, or add --over"),
        ("gan14", "--input two", 2, "--input two: mlp makes images from noise; leave it out"),
        ("mlp_xor", "-o x.png", 2, "-o x.png: the answers of dense are a table; name a file that ends in .csv"),
        ("mlp_xor", "--class 1", 2, "--class 1: dense is a classifier; it makes no images; leave it out"),
        ("mlp_xor", "--seeds 0-3", 2, "--seeds 0-3: dense is a classifier; it makes no images; leave it out"),
    ],
)
def test_a_mistake_is_reported_in_one_line(name, words, code, message, inside):
    make = {
        "cyclegan": cyclegan,
        "gan14": gan14,
        "mlp_xor": lambda path: table_run(path, "mlp_xor", "xor")[0],
    }[name]
    for folder in ("empty", "two"):
        (inside / folder).mkdir()
    for file in ("text.txt", "mine.png"):
        (inside / file).write_text("mine")
    for file in "ab":
        Image.fromarray(noise(8, 8, 3)).save(inside / "two" / f"{file}.png")
    result = sample(make(inside / "run"), *words.split())
    assert isinstance(result.exception, GantoolError)
    assert str(result.exception).startswith(message)
    assert result.exception.exit_code == code
    assert not (inside / "x.png").exists()
    assert (inside / "mine.png").read_text() == "mine"


def test_a_model_refuses_to_make_what_it_does_not_make(tmp_path):
    run, _ = table_run(tmp_path / "run", "mlp_xor", "xor")
    with pytest.raises(GantoolError, match=r"dense answers, and makes no images; use gantool sample$"):
        load(run.path, device="cpu").sample([0])
    gan = gan14(tmp_path / "gan")
    with pytest.raises(GantoolError, match=r"mlp makes images, and answers nothing$"):
        load(gan.path, device="cpu").answer(torch.zeros(1, 2))
    with pytest.raises(GantoolError, match=r"^--walk: pix2pix makes images from images, and has no latents to walk"):
        list(load(pix2pix(tmp_path / "p").path, device="cpu").walk([0, 1], 2))
