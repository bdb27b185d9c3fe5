"""The drawn dataset: the same everywhere, what its factors say, and five classes that can be told apart."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

from gantool.data import eggs
from gantool.errors import DataError


@cache
def regions(name: str) -> list[tuple[eggs.Factors, np.ndarray]]:
    """Factors and mask [64, 64] of the pictures in which colour alone tells the body from the table."""
    found = []
    for index in range(eggs.COUNT):
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
    true, picture = eggs.factors(name, index), eggs.render(name, index)
    row, column = int(true.y * 64), int(true.x * 64)
    return np.median(picture[row - 3 : row + 4, column - 3 : column + 4], axis=(0, 1))


def shrink(picture: np.ndarray, side: int) -> np.ndarray:
    block = len(picture) // side
    return picture.reshape(side, block, side, block, 3).mean((1, 3), dtype=float)


@pytest.mark.parametrize("name", eggs.CLASSES)
@pytest.mark.parametrize("size", [28, 64, 128, 256])
def test_a_picture_has_the_size_asked_for_and_three_bytes_a_pixel(name, size):
    picture = eggs.render(name, 0, size)
    assert picture.shape == (size, size, 3)
    assert picture.dtype == np.uint8
    assert picture.flags.c_contiguous


def test_a_picture_is_64_pixels_wide_unless_said():
    assert eggs.render("Egg", 0).shape == (64, 64, 3)


@pytest.mark.parametrize("name", eggs.CLASSES)
def test_a_name_and_an_index_always_give_the_same_picture(name):
    first = eggs.render(name, 7)
    eggs.render(name, 8, 28)
    assert np.array_equal(first, eggs.render(name, 7))
    assert eggs.factors(name, 7) == eggs.factors(name, 7)


@pytest.mark.parametrize("name", eggs.CLASSES)
def test_every_index_is_another_picture(name):
    assert len({eggs.render(name, index).tobytes() for index in range(30)}) == 30
    assert len({eggs.factors(name, index) for index in range(eggs.COUNT)}) == eggs.COUNT


@pytest.mark.parametrize("name", eggs.CLASSES)
@pytest.mark.parametrize(("small", "large"), [(28, 112), (64, 128), (64, 256)])
def test_every_size_shows_the_same_picture(name, small, large):
    for index in range(3):
        pictures = shrink(eggs.render(name, index, large), small), eggs.render(name, index, small)
        assert np.abs(pictures[0] - pictures[1]).mean() < 4


@pytest.mark.parametrize("name", ["Egg", "Tomato", "Lemon"])
def test_the_body_is_where_its_factors_say(name):
    found = regions(name)
    assert len(found) > 20
    for true, mask in found:
        row, column = (np.argwhere(mask).mean(0) + 0.5) / 64
        # The middle of the axis is not the middle of the area: an egg is fuller below, a calyx is not red.
        assert abs(column - true.x) < 0.05
        assert abs(row - true.y) < 0.06


@pytest.mark.parametrize("name", ["Egg", "Tomato", "Lemon"])
def test_the_body_is_as_large_as_its_factors_say(name):
    found = regions(name)
    ellipse = [np.pi * true.size**2 * true.aspect for true, _ in found]
    area = [mask.mean() for _, mask in found]
    assert np.corrcoef(ellipse, area)[0, 1] > 0.9
    assert np.mean(area) == pytest.approx(np.mean(ellipse), rel=0.2)


def test_the_body_is_turned_as_its_factors_say():
    for true, mask in regions("Lemon"):
        row, column = np.argwhere(mask).T
        values, vectors = np.linalg.eigh(np.cov(column, row))
        across, along = vectors[:, 1]
        if values[1] > 1.3 * values[0]:
            assert abs(-across * np.sin(true.angle) + along * np.cos(true.angle)) > 0.9


def test_the_side_towards_the_lamp_is_the_brighter_one():
    for index in range(40):
        true, picture = eggs.factors("Egg", index), eggs.render("Egg", index).mean(2)
        reach = 0.6 * true.size * np.array((np.sin(true.light_angle), np.cos(true.light_angle)))
        lit, shaded = (
            picture[tuple((64 * (np.array((true.y, true.x)) + sign * reach)).astype(int))] for sign in (1, -1)
        )
        assert true.speckled or lit > shaded


@pytest.mark.parametrize("name", eggs.CLASSES)
def test_every_factor_stays_in_its_range(name):
    for index in range(eggs.COUNT):
        true = eggs.factors(name, index)
        assert abs(true.x - 0.5) < 0.2
        assert abs(true.y - 0.5) < 0.2
        assert 0.1 < true.size < 0.4
        assert 0.8 < true.aspect < 3.2
        assert -2.7 <= true.light_angle <= -0.4
        assert true.speckled or true.kind != "speckled"
        assert name == "Egg" or not true.speckled


def test_every_kind_and_every_table_is_in_the_dataset():
    kinds = {(name, eggs.factors(name, index).kind) for name in eggs.CLASSES for index in range(eggs.COUNT)}
    assert {kind for name, kind in kinds if name == "Egg"} == {"white", "brown", "blue", "green", "speckled"}
    assert {kind for name, kind in kinds if name == "Onion"} == {"brown", "red", "white"}
    for name in eggs.CLASSES:
        tables = {eggs.factors(name, index).background for index in range(eggs.COUNT)}
        assert tables == {"wood", "linen", "slate"}


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


def test_a_nearest_neighbour_on_few_pixels_tells_the_classes_apart():
    def features(indices: range) -> np.ndarray:
        pictures = [shrink(eggs.render(name, index), 8).ravel() for name in eggs.CLASSES for index in indices]
        return np.stack(pictures)

    known, asked = features(range(60)), features(range(60, 80))
    distance = ((asked[:, None] - known) ** 2).sum(2)
    assert (distance.argmin(1) // 60 == np.arange(100) // 20).mean() > 0.6


@pytest.mark.parametrize("name", eggs.CLASSES)
def test_pictures_are_neither_burnt_out_nor_drowned(name):
    pictures = np.stack([eggs.render(name, index) for index in range(20)])
    assert (pictures == 255).all(3).mean() < 0.02
    assert (pictures < 8).all(3).mean() < 0.02
    assert 70 < pictures.mean() < 180
    assert pictures.std((1, 2)).min() > 5


@pytest.mark.parametrize("call", [eggs.render, eggs.factors])
def test_an_unknown_class_is_named_with_the_nearest_known_one(call):
    with pytest.raises(DataError, match=r"^unknown class 'Tomatoe'; did you mean 'Tomato'\?$"):
        call("Tomatoe", 0)
    with pytest.raises(DataError, match=r"^unknown class 'car'; known: Carrot, Egg, Lemon, Onion, Tomato$"):
        call("car", 0)
