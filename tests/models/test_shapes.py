"""The layer table: exact sizes and counts of every recipe, and the arithmetic against torch's own layers."""

from __future__ import annotations

import os
import random
import re
from functools import partial
from pathlib import Path

import pytest
import torch
from gantool import cli, models, terminal
from gantool.batches import ImageSpec, Labeled
from gantool.errors import RecipeError, ShapeError
from gantool.models import losses, shapes
from gantool.models.base import UnconditionalGAN
from gantool.models.dcgan import DCGAN
from gantool.recipe.load import shipped
from gantool.training import engine
from rich.console import Console
from torch import nn

GOLDEN = Path(__file__).parents[1] / "golden"
NON_SATURATING = losses.find_loss("non_saturating")()


class Given(UnconditionalGAN):
    """A game of networks that a test brings along."""

    def __init__(self, data, generator, discriminator, latent_dim=5):
        super().__init__(data, NON_SATURATING, latent_dim=latent_dim)
        self.generator, self.discriminator = generator, discriminator


def built(name, changes=None):
    recipe = engine.open_recipe(name, changes)
    block = recipe.data
    classes = tuple(block.classes or [str(digit) for digit in range(10)])
    return models.build(recipe, ImageSpec(block.channels or 3, block.height, block.width, classes))


def dcgan(size, generator, discriminator, channels=1):
    data = ImageSpec(channels, size, size)
    return DCGAN(data, NON_SATURATING, latent_dim=3, generator=generator, discriminator=discriminator)


@pytest.mark.parametrize("name", ["gan28", "dcgan28", "dcgan_tf28", "cgan_egg"])
def test_each_layer_takes_the_output_of_the_one_before_it_and_the_parts_sum_to_the_whole(name):
    model = built(name)
    layers = shapes.trace(lambda: model, "cpu")
    assert layers == shapes.trace(lambda: built(name))  # on the meta device
    for network in ("generator", "discriminator"):
        own = [row for row in layers if row.network == network]
        assert sum(row.parameters for row in own) == sum(p.numel() for p in getattr(model, network).parameters())
        if name != "cgan_egg":  # whose embeddings stand beside the row
            assert [row.input for row in own[1:]] == [row.output for row in own[:-1]]
    assert layers[-1].output == (1,)


def a_convolution(pick, kind):
    """A layer of random numbers, differing between height and width, and a size that it takes."""
    pair = lambda low, high: (pick.randint(low, high), pick.randint(low, high))  # noqa: E731
    kernel, stride, dilation = pair(1, 6), pair(1, 4), pair(1, 3)
    if kind is nn.Conv2d:
        layer = kind(1, 1, kernel, stride, pair(0, 4), dilation)
    else:
        extra = tuple(pick.randint(0, max(stride[axis], dilation[axis]) - 1) for axis in (0, 1))
        layer = kind(1, 1, kernel, stride, pair(0, 4), extra, dilation=dilation)
    return layer, (1, *pair(1, 20))


@pytest.mark.parametrize("kind", [nn.Conv2d, nn.ConvTranspose2d])
def test_the_formulas_give_what_torch_gives_for_any_numbers(kind):
    pick = random.Random(7)
    checked = 0
    while checked < 250:
        layer, size = a_convolution(pick, kind)
        try:
            made = tuple(layer(torch.zeros(1, *size)).shape[1:])
        except RuntimeError:  # larger than the image
            continue
        if 0 in made:
            continue
        formula = shapes._formula(layer, size, made, 0)
        sides = re.fullmatch(r"height (.+), width (.+)", formula)
        for axis, text in enumerate(sides.groups() if sides else (formula, formula)):
            sum_, _, result = text.partition(" = ")
            exact, _, rounded = result.partition(" -> ")
            assert int(rounded or exact) == made[1 + axis], (layer, size, text)
            assert eval(sum_) == pytest.approx(float(exact), abs=1e-4), text
        checked += 1


def test_a_pipe_has_lines_as_long_as_they_have_to_be(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(terminal, "out", Console(width=80, highlight=False, soft_wrap=True, color_system=None))
    with pytest.raises(SystemExit):
        cli.main(["shapes", "pix2pix_facades", "--data-dir", str(tmp_path)])
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [" ".join(row[5:]) for row in rows if row[:1] == ["down.1.1"]] == ["(128 - 4 + 2*1)/2 + 1 = 64"]


@pytest.mark.parametrize("name", shipped())
def test_the_printed_table_is_the_golden_one(name, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(terminal, "out", Console(width=140, highlight=False, soft_wrap=True, color_system=None))
    with pytest.raises(SystemExit) as end:
        cli.main(["shapes", name, "--data-dir", str(tmp_path)])
    assert end.value.code in (0, None)
    printed = "\n".join(line.rstrip() for line in capsys.readouterr().out.splitlines()) + "\n"
    golden = GOLDEN / f"shapes-{name}.txt"
    if os.environ.get("GANTOOL_UPDATE_GOLDEN") == "1":
        golden.parent.mkdir(exist_ok=True)
        golden.write_text(printed, encoding="utf-8", newline="\n")
    assert golden.is_file(), "a new recipe: set GANTOOL_UPDATE_GOLDEN=1 to write its table"
    assert printed == golden.read_text(encoding="utf-8")


def test_tracing_takes_no_memory_for_weights_and_draws_none_of_the_callers_random_numbers():
    before = torch.get_rng_state()
    layers = shapes.trace(lambda: built("gan14", {"model.generator": [1_000_000, 1_000_000]}))
    assert sum(row.parameters for row in layers) > 10**12
    shapes.trace(lambda: built("gan14"), "cpu")
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
@pytest.mark.parametrize(
    ("layer", "inputs", "outputs", "formula"),
    [
        (nn.Conv2d(1, 1, 3, 2, 1), (1, 4096, 4096), (1, 2048, 2048), "(4096 - 3 + 2*1)/2 + 1 = 2048.5 -> 2048"),
        (nn.Conv2d(1, 1, 5, padding="same"), (1, 8, 8), (1, 8, 8), "(8 - 5 + 2*2)/1 + 1 = 8"),
        (nn.Conv2d(1, 1, 4, padding="same"), (1, 8, 8), (1, 8, 8), "(8 - 4 + 2*1.5)/1 + 1 = 8"),
        (nn.Conv2d(1, 1, 5, padding="valid"), (1, 8, 8), (1, 4, 4), "(8 - 5 + 2*0)/1 + 1 = 4"),
        (nn.MaxPool2d(2), (6, 12, 12), (6, 6, 6), "(12 - 2 + 2*0)/2 + 1 = 6"),
        (nn.MaxPool2d(2, ceil_mode=True), (6, 7, 7), (6, 4, 4), "(7 - 2 + 2*0)/2 + 1 = 3.5 -> 4"),
        (nn.ReflectionPad2d(3), (3, 64, 32), (3, 70, 38), "height 64 +3 +3 = 70, width 32 +3 +3 = 38"),
    ],
)
def test_a_formula_shows_its_numbers(layer, inputs, outputs, formula):
    assert tuple(layer(torch.zeros(1, *inputs)).shape[1:]) == outputs
    assert shapes._formula(layer, inputs, outputs, 0) == formula


def _to_image(size):
    return nn.Sequential(nn.Linear(5, size * size), nn.Unflatten(1, (1, size, size)))


FLAT = "from generator.1 (Unflatten)"


@pytest.mark.parametrize("device", ["meta", "cpu"])
@pytest.mark.parametrize(
    ("layers", "sentence"),
    [
        (lambda: [nn.Conv2d(3, 4, 3)], f"0 (Conv2d): wants 3 channels, got 1 (of 1x8x8) {FLAT}"),
        (lambda: [nn.Conv2d(1, 1, 11, 1, 1)], f"0 (Conv2d): wants 9x9 pixels or more, got 1x8x8 {FLAT}; "
         "(8 - 11 + 2*1)/1 + 1 = 0"),
        (lambda: [nn.Conv2d(1, 1, (3, 5), dilation=(1, 3))], "0 (Conv2d): wants 3x13 pixels or more, got 1x8x8 "
         f"{FLAT}; height (8 - 3 + 2*0)/1 + 1 = 6, width (8 - 13 + 2*0)/1 + 1 = -4"),
        (lambda: [nn.ConvTranspose2d(1, 1, 2, 1, 5)], "0 (ConvTranspose2d): wants more pixels than it cuts, got 1x8x8 "
         f"{FLAT}; (8 - 1)*1 - 2*5 + 2 = -1"),
        (lambda: [nn.ConvTranspose2d(1, 1, 3, 1, 5)], "0 (ConvTranspose2d): wants more pixels than it cuts, got 1x8x8 "
         f"{FLAT}; (8 - 1)*1 - 2*5 + 3 = 0"),
        (lambda: [nn.Flatten(), nn.Linear(60, 1)], "1 (Linear): wants 60 numbers, got 64 from discriminator.0 (Fl"),
        (lambda: [nn.Flatten(), nn.Unflatten(1, (5, 5))], "1 (Unflatten): does not take 64 from discriminator.0 (Fl"),
        (lambda: [nn.BatchNorm2d(2)], f"0 (BatchNorm2d): does not take 1x8x8 {FLAT}: "),
    ],
)  # fmt: skip
def test_a_layer_that_does_not_fit_is_reported_with_its_input_and_the_input_that_it_takes(layers, sentence, device):
    build = lambda: Given(ImageSpec(1, 8, 8), _to_image(8), nn.Sequential(*layers()))  # noqa: E731
    with pytest.raises(ShapeError) as error:
        shapes.trace(build, device)
    assert str(error.value).startswith(f"discriminator.{sentence}")
    assert "\n" not in str(error.value)


def test_networks_whose_ends_do_not_fit_the_data_are_refused():
    to_score = nn.Sequential(nn.Flatten(), nn.Linear(64, 1))
    for generator, discriminator, message in (
        (nn.Sequential(nn.Linear(4, 64)), to_score, "generator.0 (Linear): wants 4 numbers, got 5"),
        (_to_image(7), to_score, "generator: makes images of 1x7x7, but the data's are 1x8x8"),
        (_to_image(8), nn.Conv2d(1, 1, 7), "discriminator: ends in 1x2x2 numbers an image, but a score is one"),
    ):
        model = Given(ImageSpec(1, 8, 8), generator, discriminator)
        with pytest.raises(ShapeError, match=f"^{re.escape(message)}$"):
            shapes.trace(lambda model=model: model, "cpu")


def test_random_convolutions_fit_or_fail_alike_on_both_devices_and_only_in_words():
    pick = random.Random(3)
    fitting = 0
    for _ in range(160):
        size, channels = pick.randint(1, 16), pick.choice([1, 3])
        row = lambda last: (last or pick.randint(1, 3), pick.randint(1, 6), pick.randint(1, 3), pick.randint(0, 4))  # noqa: E731
        # A generator of one layer fits any size; a random one hardly ever does.
        fits = [(channels, size, 1, 0)]
        generator = pick.choice([fits, [*(row(None) for _ in range(pick.randint(0, 2))), row(channels)]])
        discriminator = [*(row(None) for _ in range(pick.randint(0, 1))), row(1)]
        build = partial(dcgan, size, generator, discriminator, channels)
        outcomes = []
        for device in ("meta", "cpu"):
            try:
                outcomes.append(shapes.trace(build, device))
            except ShapeError as error:
                outcomes.append(str(error))
        assert outcomes[0] == outcomes[1], (size, generator, discriminator)
        fitting += isinstance(outcomes[0], list)
    assert fitting > 1


@pytest.mark.parametrize(
    ("name", "changes", "advice"),
    [
        ("folder64", {"data.size": 128}, "add a row of stride 2 to each network: [64, 4, 2, 1] after the first of "
         "model.generator, [16, 4, 2, 1] before the first of model.discriminator; or use data.size=64"),
        ("dcgan14", {"data.size": 56}, "add 2 rows of stride 2 to each network: [256, 4, 2, 1] after the first of "
         "model.generator, [32, 4, 2, 1] before the first of model.discriminator; or use data.size=14"),
        ("dcgan14", {"data.size": 20}, "data.size=14 would fit"),
        ("dcgan14", {"model.discriminator": [[8, 3, 1, 0], [1, 3, 1, 0]]},
         "no image size up to 128 fits these layers; change a kernel, stride or padding"),
    ],
)  # fmt: skip
def test_networks_that_do_not_fit_are_reported_with_the_layers_to_add_or_the_sizes_that_fit(
    name, changes, advice, tmp_path
):
    with pytest.raises(ShapeError) as error:
        engine.shapes(engine.open_recipe(name, changes), tmp_path)
    assert str(error.value).partition("; ")[2] == advice


def test_batches_of_one_image_are_refused_where_a_layer_needs_more(tmp_path):
    message = r"^train.batch_size: generator.layers.3 \(BatchNorm1d\) cannot learn from 1 image; use 2 or more$"
    with pytest.raises(RecipeError, match=message):
        engine.shapes(engine.open_recipe("cgan_egg", {"train.batch_size": 1}), tmp_path)
    for name in ("gan14", "dcgan14"):
        assert engine.shapes(engine.open_recipe(name, {"train.batch_size": 1}), tmp_path)


def test_an_error_outside_of_every_layer_is_not_changed():
    class Broken(Given):
        def play(self, batch: Labeled):
            raise RuntimeError("a bug of the model")
            yield

    with pytest.raises(RuntimeError, match="a bug of the model"):
        shapes.trace(lambda: Broken(ImageSpec(1, 8, 8), _to_image(8), nn.Flatten()), "cpu")
