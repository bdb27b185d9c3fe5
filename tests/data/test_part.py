"""`data.limit`: a fixed random part of every kind of source, with the same share of each class."""

from __future__ import annotations

import numpy as np
import pytest
from gantool.batches import Labeled, Paired, TableBatch
from gantool.data.part import choose
from gantool.data.prepare import prepare
from gantool.recipe.blocks import Data
from PIL import Image

from refusals import refusal


def counts(groups, limit):
    chosen = choose(groups, limit)
    return [
        sum(one for one, group in zip(chosen, groups, strict=True) if group == name) for name in dict.fromkeys(groups)
    ]


@pytest.mark.parametrize(
    ("sizes", "limit", "found"),
    [
        ((600, 300, 100), 100, [60, 30, 10]),
        ((600, 300, 100), 10, [6, 3, 1]),
        ((997, 1, 1, 1), 100, [97, 1, 1, 1]),
        ((5, 5), 2, [1, 1]),
        ((5, 5), 10, [5, 5]),
        ((5, 5), 11, [5, 5]),
        ((7,), 3, [3]),
    ],
)
def test_a_part_has_the_share_of_each_class_and_one_of_each(sizes, limit, found):
    groups = [name for name, size in enumerate(sizes) for _ in range(size)]
    assert counts(groups, limit) == found
    shuffled = np.random.default_rng(0).permutation(groups).tolist()
    assert sorted(counts(shuffled, limit)) == sorted(found)


def test_a_smaller_part_is_in_a_larger_one_and_neither_follows_the_order():
    groups = ["a"] * 700 + ["b"] * 300
    parts = [np.flatnonzero(choose(groups, limit)) for limit in (50, 100, 400)]
    assert set(parts[0]) < set(parts[1]) < set(parts[2])
    assert 200 < parts[0][parts[0] < 700].mean() < 500
    assert np.array_equal(parts[0][:4], np.flatnonzero(choose(groups, 50))[:4])


def test_fewer_images_than_classes_are_refused():
    assert refusal(choose, list(range(10)), 5) == "data.limit: 5 is less than the 10 classes; each needs an example"


def test_a_part_of_digits_has_its_own_store_and_says_of_how_many_it_is(tmp_path):
    def digits(**options):
        return prepare(Data(source="digits", size=8, **options), tmp_path)

    whole, part = digits(), digits(limit=100)
    assert (whole.part, part.part, len(part)) == ("", "100 of 1,797", 100)
    assert np.bincount(part.labels).tolist() == [10] * 10
    assert np.array_equal(digits(limit=100).images, part.images)
    rows = {image.tobytes() for image in whole.images}
    assert all(image.tobytes() in rows for image in part.images)
    assert len({whole.digest, part.digest}) == len({whole.key, part.key}) == 2
    assert digits(limit=5000).part == ""
    assert digits(limit=20, classes=["3", "5"]).part == "20 of 365"


def test_a_part_of_pairs_counts_pairs_and_decodes_no_others(tmp_path):
    for index in range(10):
        image = Image.new("L", (16, 8), 20 * index)
        image.paste(200, (8, 0, 16, 8))
        image.save(tmp_path / f"{index}.png")
    store = prepare(Data(source=str(tmp_path), size=8, limit=4), tmp_path / "data", Paired)
    assert (store.part, len(store), store.labels.tolist()) == ("4 of 10", 8, [0, 1] * 4)
    assert [int(image.max()) for image in store.images[1::2]] == [200] * 4


def test_a_part_of_a_folder_reads_no_other_file(tmp_path):
    (tmp_path / "all").mkdir()
    for index in range(10):
        Image.new("L", (8, 8), 20 * index).save(tmp_path / "all" / f"{index}.png")
    part = prepare(Data(source=str(tmp_path / "all"), size=8, limit=4), tmp_path / "data", Labeled)
    used = {int(image.max()) // 20 for image in part.images}
    for index in set(range(10)) - used:
        (tmp_path / "all" / f"{index}.png").write_bytes(b"damaged")
    again = prepare(Data(source=str(tmp_path / "all"), size=8, limit=4), tmp_path / "data", Labeled)
    assert (again.skipped, again.part) == ([], "4 of 10")
    assert np.array_equal(again.images, part.images)


def test_a_part_of_a_table_keeps_the_share_of_held_out_rows(tmp_path):
    whole = prepare(Data(source="income"), tmp_path, TableBatch)
    part = prepare(Data(source="income", limit=400), tmp_path, TableBatch)
    assert (part.part, len(part), len(part.train), len(part.held_out)) == ("400 of 4,000", 400, 320, 80)
    assert set(part.texts) <= set(whole.texts)
    assert abs(part.labels.mean() - whole.labels.mean()) < 0.01
    assert np.array_equal(np.sort(np.r_[part.train, part.held_out]), np.arange(400))
