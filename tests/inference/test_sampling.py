"""Images from a trained generator: a seed is one image, a name one class, a walk one way."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from gantool import load
from gantool.errors import CheckpointError, GantoolError, RunError
from gantool.images import to_pixels
from gantool.inference.animate import animate_training, animate_walk
from gantool.inference.sampling import TrainedModel, slerp
from gantool.models.base import LatentModel
from gantool.training import engine
from PIL import Image

import trained
from small import of, spec

CPU = torch.device("cpu")


def untrained(path, name, changes=None, checkpoint="best"):
    recipe = engine.open_recipe(name, changes)
    return trained.untrained(path, recipe, spec(recipe), checkpoint=checkpoint)


@pytest.fixture(scope="module")
def foods(tmp_path_factory):
    changes = {"data.size": 8, "data.classes": ["Egg", "Lemon", "Onion"]}
    return untrained(tmp_path_factory.mktemp("foods") / "run", "cgan_egg", changes)


@pytest.mark.parametrize("name", of(LatentModel))
def test_a_seed_is_the_same_image_alone_and_beside_any_others(name, tmp_path):
    model = TrainedModel(untrained(tmp_path / "run", name), device="cpu")
    assert (model.recipe.name, model.epoch, model.file.name) == (name, 7, "best.pt")
    single = model.data.classes[0] if model.model.conditional else None
    images = model.sample([7], single)
    assert (images.dtype, images.device, images.requires_grad) == (torch.float32, CPU, False)
    assert bool((images.abs() <= 1).all())
    alone = to_pixels(images)
    assert alone.shape == (1, model.data.height, model.data.width, model.data.channels)
    parts = []
    model.model.generator.register_forward_hook(lambda _, inputs, output: parts.append(len(output)))
    for seeds in (range(10), [7, 7, 3], [*range(70, 0, -1)]):
        many = model.sample(seeds, single)
        assert np.array_equal(to_pixels(many)[list(seeds).index(7)], alone[0])
        assert len({image.numpy().tobytes() for image in many}) == len(set(seeds))
    assert parts == [10, 3, 64, 6]


def test_an_image_depends_neither_on_threads_nor_on_the_callers_random_numbers(tmp_path):
    run = untrained(tmp_path / "run", "dcgan14")
    first = to_pixels(load(run.path, device="cpu").sample([3]))
    threads, before = torch.get_num_threads(), torch.get_rng_state()
    try:
        torch.set_num_threads(1)
        assert np.array_equal(first, to_pixels(load(run.path, device="cpu").sample([3])))
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(before, torch.get_rng_state())


def test_a_class_is_asked_for_by_its_name_and_without_one_they_take_turns(foods):
    model = load(foods.path, device="cpu")
    lemon = model.sample([4, 5], class_name="Lemon")
    assert torch.equal(lemon, model.render(model.model.prompt([4, 5], [1, 1])))
    mixed = model.sample(range(6))
    for index, name in enumerate(["Egg", "Lemon", "Onion"] * 2):
        assert np.array_equal(to_pixels(mixed[index : index + 1]), to_pixels(model.sample([index], name)))
    with pytest.raises(RunError, match=r"^--class Lemmon: unknown class 'Lemmon'; did you mean 'Lemon'\?$"):
        model.sample([0], class_name="Lemmon")


@pytest.mark.parametrize(
    ("there", "wanted", "message"),
    [
        ("epoch-0015", "16", "no checkpoint '16'; there are: 15; train.keep_every keeps more"),
        ("epoch-0015", "best", "no checkpoint 'best'; there are: 15"),
        ("last", "best", "no checkpoint 'best'; there are: last; --checkpoint last, or train it further: gantool train "
         "{run} --resume"),
        (None, "best", "no checkpoint 'best'; there is none"),
    ],
)  # fmt: skip
def test_a_missing_checkpoint_names_those_that_exist(there, wanted, message, tmp_path):
    run = untrained(tmp_path / "run", "gan14", checkpoint=there or "best")
    if there is None:
        (run.checkpoints / "best.pt").unlink()
    with pytest.raises(CheckpointError) as error:
        load(run.path, wanted, "cpu")
    assert str(error.value) == f"{run.path}: {message.format(run=run.path)}"


def test_kept_epochs_are_sampled_by_number_and_the_previous_checkpoint_stands_in_for_the_last(tmp_path):
    assert load(untrained(tmp_path / "run", "gan14", checkpoint="epoch-0015").path, "15", "cpu").epoch == 7
    run = untrained(tmp_path / "other", "gan14", checkpoint="previous")  # a kill between two renamings
    assert load(run.path, "last", "cpu").file.name == "previous.pt"
    with pytest.raises(RunError, match=r"^--checkpoint newest: expected best, last or the number of an epoch$"):
        load(run.path, "newest", "cpu")


# Walks


def test_a_great_circle_keeps_the_length_of_latents_and_is_straight_between_equal_or_opposite_ones():
    one = torch.tensor([1.0, 2.0], dtype=torch.float64)
    torch.testing.assert_close(slerp(one, one, 0.3), one)
    torch.testing.assert_close(slerp(one, -one, 0.25), 0.5 * one)
    generator = torch.Generator().manual_seed(0)
    start, end = (torch.randn(100, generator=generator, dtype=torch.float64) for _ in range(2))
    start, end = 10 * start / start.norm(), 10 * end / end.norm()
    for share in (0.0, 0.2, 0.5, 0.9, 1.0):
        assert slerp(start, end, share).norm().item() == pytest.approx(10, rel=1e-12)
    torch.testing.assert_close(slerp(start, end, 0), start)
    torch.testing.assert_close(slerp(start, end, 1), end)
    angle = math.acos((start @ end).item() / 100)
    steps = [slerp(start, end, share / 8) for share in range(9)]
    for one, other in pairwise(steps):
        assert math.acos((one @ other).item() / 100) == pytest.approx(angle / 8, rel=1e-6)


def test_a_walk_comes_by_its_seeds_and_loops(foods):
    model = load(foods.path, device="cpu")
    frames = [to_pixels(frame) for frame in model.walk([3, 4, 9], 5, "Onion")]
    assert len(frames) == 15
    for index, seed in enumerate((3, 4, 9)):
        assert np.array_equal(frames[5 * index], to_pixels(model.sample([seed], "Onion")))
    apart = [np.abs(a.astype(int) - b).mean() for a, b in zip(frames, [*frames[1:], frames[0]], strict=True)]
    assert max(apart) < 4 * np.median(apart) + 2  # no jump, at the end neither


# Animations


def test_training_is_animated_from_its_grids_and_a_walk_from_its_seeds(foods, tmp_path):
    with pytest.raises(GantoolError, match=r"no grids yet; train it first: gantool train .* --resume$"):
        animate_training(foods, tmp_path / "training.gif")
    run = untrained(tmp_path / "run", "gan14")
    for epoch in (1, 2, 12):
        Image.new("L", (20, 20), epoch).save(run.samples / f"epoch-{epoch:04d}.png")
    made = [animate_training(run, tmp_path / "0.gif"), animate_walk(run, tmp_path / "1.gif", [1, 2], 4, None, "best")]
    for index, count in enumerate(made):
        with Image.open(tmp_path / f"{index}.gif") as animation:
            assert animation.n_frames == count == (3, 8)[index]


def test_damaged_grids_are_left_out_of_an_animation_with_a_warning(tmp_path, logged):
    run = untrained(tmp_path / "run", "gan14")
    (run.samples / "epoch-0001.png").write_bytes(b"\x89PNG damaged")
    (run.samples / "epoch-0002.png").mkdir()
    with pytest.raises(CheckpointError, match="samples: none of its 2 grids can be read as an image"):
        animate_training(run, tmp_path / "a.gif")
    assert not list(tmp_path.glob("*.gif"))

    Image.new("L", (20, 20)).save(run.samples / "epoch-0003.png")
    logged.clear()
    assert animate_training(run, tmp_path / "a.gif") == 1
    assert logged[0] == f"{run.samples / 'epoch-0001.png'}: cannot be read as an image; it is left out"
