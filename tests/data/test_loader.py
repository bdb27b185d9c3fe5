"""Batches: every image once an epoch, in an order that the seed alone decides, from stores of any size."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from gantool.batches import ImageSpec, Labeled, Paired, TableBatch, Unpaired
from gantool.data.loader import Loader, rows_of, split
from gantool.data.store import Store, open_store
from gantool.data.tables import Table
from torch.nn.functional import interpolate

CPU = torch.device("cpu")


def store(count, shape=(1, 2, 3)):
    """A store whose images tell their row: the first pixels are the row number's digits in base 256."""
    images = np.zeros((count, *shape), np.uint8)
    rows = np.arange(count)
    images[:, 0, 0, 0], images[:, 0, 0, 1] = rows % 256, rows // 256
    return Store(Path("nowhere"), images, rows.astype(np.int64), ImageSpec(*shape), {"skipped": []})


def kinds(first, second):
    """A store as `store` makes it, whose first images are of one class and whose others are of another."""
    return dataclasses.replace(store(first + second), labels=np.repeat([0, 1], [first, second]))


def noise(count, shape=(2, 5, 7)):
    """Pairs of random images and their negatives, which a mirror and a window keep negatives of each other."""
    images = np.random.default_rng(0).integers(0, 256, (count, *shape), dtype=np.uint8)
    images[1::2] = 255 - images[::2]
    return Store(Path("nowhere"), images, np.tile([0, 1], count // 2), ImageSpec(*shape, ("a", "b")), {"skipped": []})


def shown(images):
    """Return the rows of `store` that images are."""
    pixels = ((images + 1) * 127.5).round().long()
    return (pixels[:, 0, 0, 0] + 256 * pixels[:, 0, 0, 1]).tolist()


def epoch(loader, number, start=0):
    return [batch.labels.tolist() for batch in loader.epoch(number, start)]


def same(one, other):
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


# --- images with a class ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("count", "size"), [(60, 20), (79, 20), (7, 7), (5, 8), (3, 1)])
def test_an_epoch_shows_as_many_different_images_as_fit_in_whole_batches(count, size):
    data = store(count)
    before = data.images.copy()
    loader = Loader(data, size, 0, CPU)
    batches = list(loader.epoch(1))
    effective = min(size, count)
    assert [len(batch.labels) for batch in batches] == [effective] * (count // effective)
    assert len(loader) == len(batches)
    rows = [row for batch in batches for row in batch.labels.tolist()]
    assert len(set(rows)) == len(rows)
    assert [row for batch in batches for row in shown(batch.images)] == rows
    batches[0].images.zero_()  # a batch is a copy
    assert np.array_equal(data.images, before)


def test_a_single_image_is_yielded_twice_because_batch_norm_needs_two():
    assert epoch(Loader(store(1), 64, 0, CPU), 1) == [[0, 0]]
    assert epoch(Loader(store(1), 1, 0, CPU), 1) == [[0]]


def test_a_seed_and_an_epoch_decide_the_order_and_nothing_else_does():
    one, again, other, largest = (Loader(store(100), 10, seed, CPU) for seed in (4, 4, 5, 2**32 - 1))
    torch.randn(3)
    list(again.epoch(7))
    orders = [epoch(one, 2), epoch(one, 3), epoch(other, 2), epoch(largest, 1_000_000)]
    assert epoch(again, 2) == orders[0]
    assert len({str(order) for order in orders}) == 4
    few = Loader(store(20), 3, 0, CPU, np.array([3, 5, 7, 11]))
    assert {row for number in (1, 2, 3) for batch in epoch(few, number) for row in batch} == {3, 5, 7, 11}


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc, and wants a file system with sparse files")
def test_a_store_larger_than_memory_is_opened_and_gives_batches(tmp_path):
    def anonymous_memory():
        (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("RssAnon:"))
        return int(line.split()[1]) * 1024

    side = 512
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    count = memory // (3 * side * side) + 5000
    about = {"images": count, "channels": 3, "height": side, "width": side, "classes": ["image"], "skipped": []}
    (tmp_path / "about.json").write_text(json.dumps(about), encoding="utf-8")
    np.zeros(count, np.int64).tofile(tmp_path / "labels.i64")
    with (tmp_path / "images.u8").open("wb") as file:
        try:
            file.truncate(count * 3 * side * side)  # takes no disk
        except OSError as error:
            pytest.skip(f"no sparse files here: {error}")
        file.seek(-1, os.SEEK_END)
        file.write(b"\xff")
    before = anonymous_memory()
    loader = Loader(open_store(tmp_path), 16, 0, CPU)
    for batch in islice(loader.epoch(1), 3):
        assert batch.images.shape == (16, 3, side, side)
    assert loader.take(torch.tensor([count - 1])).images[0, 2, -1, -1].item() == 1.0
    assert anonymous_memory() - before < 2**28


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_small_store_stays_on_the_gpu_and_yields_the_same_batches():
    gpu = Loader(store(100), 10, 1, torch.device("cuda"))
    assert gpu.inputs.is_cuda
    for here, there in zip(Loader(store(100), 10, 1, CPU).epoch(2), gpu.epoch(2), strict=True):
        assert same(here, [part.cpu() for part in there])


# --- held-out images ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("count", "share", "held_out"),
    [(19, 0.2, 0), (20, 0.2, 12), (60, 0.2, 12), (1797, 0.2, 359), (1000, 0.5, 500), (60, 0.0, 0), (100, 0.01, 12)],
)
def test_a_share_is_held_out_but_at_least_twelve_if_eight_are_left(count, share, held_out):
    found = split(np.zeros(count, np.int64), share)
    assert len(found.held_out) == held_out
    assert sorted([*found.train, *found.held_out]) == list(range(count))
    assert np.array_equal(found.train, np.sort(found.train))


def test_a_share_of_every_class_is_held_out_and_the_choice_is_the_same_every_time():
    labels = np.repeat(np.arange(5), [1, 40, 100, 200, 659])
    shares = np.bincount(labels[split(labels, 0.2).held_out], minlength=5) / np.bincount(labels)
    assert shares[0] == 0
    np.testing.assert_allclose(shares[1:], 0.2, atol=0.03)
    held_out = split(np.zeros(1000, np.int64), 0.2).held_out
    assert held_out[:10].tolist() == [0, 2, 4, 6, 7, 13, 15, 16, 18, 23]  # with every version of the libraries
    assert np.histogram(held_out, bins=5, range=(0, 1000))[0].min() >= 25


@pytest.mark.parametrize("count", [40, 82, 200])
def test_a_pair_is_held_out_as_a_whole(count):
    train, held_out = rows_of(np.tile([0, 1], count // 2), 0.2, Paired)
    assert sorted([*train, *held_out]) == list(range(0, count, 2))
    assert len(held_out) == max(12, round(0.2 * count / 2))
    loader = Loader(store(count), 4, 0, CPU, train, Paired)
    seen = {row for number in range(1, 9) for batch in loader.epoch(number) for part in batch for row in shown(part)}
    assert seen == {*train, *(train + 1)}


# --- pairs and two kinds ------------------------------------------------------------------------------------


def test_source_and_target_of_a_pair_stay_together_and_every_pair_is_shown_once():
    batches = list(Loader(store(24), 4, 0, CPU, kind=Paired).epoch(1))
    sources = [row for batch in batches for row in shown(batch.source)]
    assert [row for batch in batches for row in shown(batch.target)] == [row + 1 for row in sources]
    assert sorted(sources) == list(range(0, 24, 2))


@pytest.mark.parametrize(("first", "second"), [(5, 12), (12, 5), (12, 12), (1, 12)])
def test_an_epoch_shows_every_image_of_the_larger_kind_once_and_repeats_the_smaller_evenly(first, second):
    loader = Loader(kinds(first, second), 4, 0, CPU, kind=Unpaired)
    epochs = [
        [[row for batch in loader.epoch(number) for row in shown(batch[place])] for place in (0, 1)]
        for number in (1, 2)
    ]
    for found, wanted in zip(epochs[0], (range(first), range(first, first + second)), strict=True):
        times = [found.count(row) for row in wanted]
        assert sum(times) == len(found) == 12
        assert max(times) - min(times) <= 1
        assert sorted(found[: len(wanted)]) == list(wanted)  # each is shown once before any comes again
    if first > 1:
        assert set(zip(*epochs[0], strict=True)) != set(zip(*epochs[1], strict=True))  # they meet in other partners


# --- mirrored and moved -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("flip", "jitter"), [(True, 0), (False, 3), (True, 3)])
def test_source_and_target_of_a_pair_are_mirrored_and_moved_alike(flip, jitter):
    plain = Loader(noise(64), 16, 0, CPU, kind=Paired)
    moved = Loader(noise(64), 16, 0, CPU, kind=Paired, flip=flip, jitter=jitter)
    for before, after in zip(plain.epoch(1), moved.epoch(1), strict=True):
        assert after.source.shape == before.source.shape
        assert not torch.equal(after.source, before.source)
        assert torch.allclose(after.target, -after.source, rtol=0, atol=1e-6)


def test_images_of_two_kinds_are_mirrored_each_by_itself_and_about_half_of_them():
    data = dataclasses.replace(noise(64), labels=np.repeat([0, 1], 32))
    (before,) = Loader(data, 32, 0, CPU, kind=Unpaired).epoch(1)
    (after,) = Loader(data, 32, 0, CPU, kind=Unpaired, flip=True).epoch(1)
    turned, stayed = (
        [(new == old).flatten(1).all(1) for old, new in zip(wanted, after, strict=True)]
        for wanted in ([part.flip(3) for part in before], before)
    )
    assert all(torch.equal(one, ~other) for one, other in zip(turned, stayed, strict=True))
    assert all(8 < int(part.sum()) < 24 for part in turned)
    assert not torch.equal(*turned)


def test_a_jittered_image_is_a_window_of_the_enlarged_one_and_every_window_comes_up():
    data, jitter = noise(64), 2
    corners = set()
    loader, plain = Loader(data, 16, 0, CPU, jitter=jitter), Loader(data, 16, 0, CPU)
    for number in (1, 2):
        for before, after in zip(plain.epoch(number), loader.epoch(number), strict=True):
            assert torch.equal(after.labels, before.labels)
            larger = interpolate(before.images, (5 + jitter, 7 + jitter), mode="bilinear")
            for image, whole in zip(after.images, larger, strict=True):
                windows = {
                    (down, across): whole[:, down : down + 5, across : across + 7]
                    for down in range(jitter + 1)
                    for across in range(jitter + 1)
                }
                (corner,) = [place for place, window in windows.items() if torch.equal(window, image)]
                corners.add(corner)
    assert len(corners) == (jitter + 1) ** 2


@pytest.mark.parametrize("kind", [Labeled, Paired, Unpaired])
def test_a_seed_and_an_epoch_decide_how_images_are_moved_and_a_resumed_epoch_gives_exactly_the_rest(kind):
    make = {"batch_size": 4, "device": CPU, "kind": kind, "flip": True, "jitter": 2}
    whole = list(Loader(noise(40), seed=1, **make).epoch(2))
    outside = torch.get_rng_state()
    again = Loader(noise(40), seed=1, **make)
    list(again.epoch(5))
    for start in (0, 1, 3, len(whole)):
        found = list(again.epoch(2, start))
        assert len(found) == len(whole) - start
        assert all(map(same, found, whole[start:]))
    assert not same(next(Loader(noise(40), seed=2, **make).epoch(2)), whole[0])
    assert not same(next(again.epoch(3)), whole[0])
    assert torch.equal(outside, torch.get_rng_state())


# --- tables -------------------------------------------------------------------------------------------------


def test_an_epoch_of_a_table_shows_every_row_that_is_learned_from_once_with_its_label():
    numbers, rows = np.arange(30), np.array([1, 2, 3, 5, 8, 13, 21, 29])
    table = Table(None, numbers[:, None].astype(np.float32), numbers % 3, rows, np.arange(0), ())
    loader = Loader(table, 4, 0, CPU, table.split(0.2, TableBatch).train, TableBatch, flip=True)
    batches = list(loader.epoch(1))
    assert [len(batch.labels) for batch in batches] == [4, 4]
    inputs, labels = (torch.cat(parts) for parts in zip(*batches, strict=True))
    assert sorted(inputs[:, 0].tolist()) == rows.tolist()
    assert torch.equal(labels, inputs[:, 0].long() % 3)
    assert all(map(same, loader.epoch(1, 1), batches[1:]))
