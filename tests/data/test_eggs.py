"""The rendered dataset: always the same images, true to their factors, of five classes that differ."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from gantool.data.sources import eggs
from gantool.data.sources.edges import edges

from refusals import refusal


@cache
def regions(name: str) -> list[tuple[eggs.Factors, np.ndarray]]:
    """Factors and mask [64, 64] of the images in which colour alone tells the body from the table."""
    found = []
    for index in range(120):
        true = eggs.factors(name, index)
        red, green, blue = np.moveaxis(eggs.render(name, index).astype(float), 2, 0)
        if name == "Tomato":
            found.append((true, (red > 60) & (red > 2.4 * green)))
        elif true.kind == "yellow" and true.background != "wood":
            found.append((true, (red > 50) & (blue < 0.6 * red)))
        elif true.kind == "brown" and true.background != "wood" and not true.speckled:
            found.append((true, (red > 50) & (blue < 0.68 * red)))
    return found


def body_colour(name: str, index: int) -> np.ndarray:
    """Median red, green and blue of the 7 x 7 pixels around the middle of the body."""
    true, image = eggs.factors(name, index), eggs.render(name, index)
    row, column = int(true.y * 64), int(true.x * 64)
    return np.median(image[row - 3 : row + 4, column - 3 : column + 4], axis=(0, 1))


@pytest.mark.parametrize("name", eggs.CLASSES)
def test_a_name_and_an_index_always_give_the_same_image(name):
    first = eggs.render(name, 7)
    eggs.render(name, 8, 28)
    assert (first.shape, first.dtype, first.flags.c_contiguous) == ((64, 64, 3), np.uint8, True)
    assert np.array_equal(first, eggs.render(name, 7))
    assert eggs.factors(name, 7) == eggs.factors(name, 7)
    assert len({eggs.render(name, index).tobytes() for index in range(30)}) == 30
    assert len({eggs.factors(name, index) for index in range(eggs.COUNT)}) == eggs.COUNT


@pytest.mark.parametrize("name", eggs.CLASSES)
@pytest.mark.parametrize(("small", "large"), [(28, 112), (64, 256)])
def test_every_size_shows_the_same_image(name, small, large):
    for index in range(3):
        large_image = eggs.render(name, index, large)
        block = large // small
        shrunk = large_image.reshape(small, block, small, block, 3).mean((1, 3), dtype=float)
        assert np.abs(shrunk - eggs.render(name, index, small)).mean() < 4


@pytest.mark.parametrize("name", ["Egg", "Tomato", "Lemon"])
def test_the_body_is_where_its_factors_say(name):
    found = regions(name)
    assert len(found) > 10
    for true, mask in found:
        row, column = (np.argwhere(mask).mean(0) + 0.5) / 64
        # The middle of the axis is not the middle of the area: an egg is fuller below, a calyx is not red.
        assert abs(column - true.x) < 0.05
        assert abs(row - true.y) < 0.06


def test_each_class_has_its_own_colour():
    colour = {name: np.array([body_colour(name, index) for index in range(40)]) for name in eggs.CLASSES}
    green, blue = ({name: c[:, k] / c[:, 0] for name, c in colour.items()} for k in (1, 2))
    assert (green["Tomato"] < 0.6).mean() > 0.7
    assert (colour["Tomato"][:, 0] > 120).mean() > 0.7
    assert (green["Lemon"] > 0.75).all()
    assert (blue["Lemon"] < 0.6).all()
    assert (green["Carrot"] < 0.65).mean() > 0.9
    assert (green["Carrot"] > 0.3).mean() > 0.9
    assert (blue["Carrot"] < 0.45).mean() > 0.9
    assert (blue["Egg"] > 0.5).mean() > 0.7


def test_an_unknown_class_or_kind_is_named_with_the_nearest_known_one():
    assert refusal(eggs.render, "Tomatoe", 0) == "unknown class 'Tomatoe'; did you mean 'Tomato'?"
    assert refusal(eggs.factors, "x", 0) == "unknown class 'x'; known: Carrot, Egg, Lemon, Onion, Tomato"
    assert refusal(eggs.render, "Egg", 0, 64, "bleu") == "unknown kind of Egg 'bleu'; did you mean 'blue'?"
    assert refusal(edges, "Tomato", 0, 64, "blue") == "unknown kind of Tomato 'blue'; known: red"


# --- kinds --------------------------------------------------------------------------------------------------


def test_another_kind_is_the_same_scene_with_another_egg():
    for index in (index for index in range(40) if eggs.factors("Egg", index).kind not in ("speckled", "blue")):
        true, blue = eggs.factors("Egg", index), eggs.factors("Egg", index, "blue")
        assert blue == true._replace(kind="blue")
        difference = np.abs(eggs.render("Egg", index, kind="blue").astype(int) - eggs.render("Egg", index)).max(2)
        assert difference[[0, 0, -1, -1], [0, -1, 0, -1]].tolist() == [0] * 4  # the corners show the table
        assert difference[int(true.y * 64), int(true.x * 64)] > 5


# --- drawings of edges --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", eggs.CLASSES)
def test_a_drawing_is_black_lines_on_white(name):
    drawing = edges(name, 3, 28)

    assert (drawing.shape, drawing.dtype) == ((28, 28), np.uint8)
    assert drawing.min() < 30
    assert (drawing == 255).mean() > 0.5


def test_the_outline_of_a_drawing_is_where_the_factors_say():
    for index in range(20):
        true, drawing = eggs.factors("Egg", index), edges("Egg", index, 128)
        for end in (-1, 1):  # the ends of the axis
            reach = end * true.size * true.aspect
            column, row = true.x - reach * np.sin(true.angle), true.y + reach * np.cos(true.angle)
            around = drawing[int(row * 128) - 2 : int(row * 128) + 3, int(column * 128) - 2 : int(column * 128) + 3]
            assert around.min() < 60
