"""Batches: every image once an epoch, in an order that the seed alone decides, from stores of any size."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from gantool.batches import DataSpec
from gantool.data.store import Store, open_store
from gantool.data.stream import Stream, split

CPU = torch.device("cpu")


def store(count, shape=(1, 2, 3)):
    """A store whose images tell their row: the first pixels are the row number's digits in base 256."""
    images = np.zeros((count, *shape), np.uint8)
    rows = np.arange(count)
    images[:, 0, 0, 0], images[:, 0, 0, 1] = rows % 256, rows // 256
    return Store(Path("nowhere"), images, rows.astype(np.int64), DataSpec(*shape), {"skipped": []})


def rows(batch):
    return batch.labels.tolist()


def epoch(stream, number, start=0):
    return [rows(batch) for batch in stream.epoch(number, start)]


def flat(stream, number):
    return [row for batch in epoch(stream, number) for row in batch]


@pytest.mark.parametrize(("count", "size"), [(60, 20), (61, 20), (79, 20), (7, 7), (5, 8), (3, 1)])
def test_an_epoch_shows_as_many_different_images_as_fit_in_whole_batches(count, size):
    stream = Stream(store(count), size, 0, CPU)
    shown = epoch(stream, 1)
    effective = min(size, count)
    assert [len(batch) for batch in shown] == [effective] * (count // effective)
    assert len(stream) == len(shown)
    images = flat(stream, 1)
    assert len(set(images)) == len(images)
    assert set(images) <= set(range(count))


def test_every_image_is_shown_once_when_batches_divide_them():
    stream = Stream(store(600), 50, 3, CPU)
    for number in (1, 2):
        assert sorted(flat(stream, number)) == list(range(600))


def test_images_left_out_of_one_epoch_come_in_another():
    stream = Stream(store(13), 5, 0, CPU)
    shown = {row for number in range(1, 12) for row in flat(stream, number)}
    assert shown == set(range(13))


def test_a_single_image_is_given_twice_because_batch_norm_needs_two():
    stream = Stream(store(1), 64, 0, CPU)
    assert epoch(stream, 1) == [[0, 0]]
    assert len(stream) == 1
    assert epoch(Stream(store(1), 1, 0, CPU), 1) == [[0]]


def test_a_seed_and_an_epoch_decide_the_order_and_nothing_else_does():
    one, same, other = (Stream(store(100), 10, seed, CPU) for seed in (4, 4, 5))
    torch.randn(3)
    list(same.epoch(7))
    assert epoch(one, 2) == epoch(same, 2)
    assert epoch(one, 2) != epoch(one, 3)
    assert epoch(one, 2) != epoch(other, 2)


def test_no_two_of_many_seeds_and_epochs_share_an_order():
    orders = {tuple(flat(Stream(store(40), 40, seed, CPU), number)) for seed in range(12) for number in (1, 9)}
    assert len(orders) == 24


@pytest.mark.parametrize("start", [0, 1, 4, 9, 10])
def test_an_epoch_resumed_at_a_batch_gives_exactly_the_rest(start):
    stream = Stream(store(103), 10, 1, CPU)
    assert epoch(stream, 3, start) == epoch(stream, 3)[start:]


def test_the_largest_seed_works():
    assert len(epoch(Stream(store(10), 5, 2**32 - 1, CPU), 1_000_000)) == 2


def test_batching_draws_none_of_the_callers_random_numbers():
    before = torch.get_rng_state()
    epoch(Stream(store(10), 5, 0, CPU), 1)
    assert torch.equal(before, torch.get_rng_state())


def test_bytes_become_numbers_from_minus_one_to_one_exactly():
    images = np.arange(256, dtype=np.uint8).reshape(256, 1, 1, 1)
    data = Store(Path("nowhere"), images, np.zeros(256, np.int64), DataSpec(1, 1, 1), {"skipped": []})
    made = Stream(data, 256, 0, CPU).take(torch.arange(256)).images
    assert made.dtype == torch.float32
    assert made.shape == (256, 1, 1, 1)
    assert made[0].item() == -1.0
    assert made[255].item() == 1.0
    np.testing.assert_allclose(made.flatten().numpy(), np.arange(256) / 127.5 - 1, rtol=0, atol=1e-7)
    assert torch.equal(((made + 1) * 127.5).round().byte().flatten(), torch.arange(256, dtype=torch.uint8))


def test_an_image_keeps_its_label_and_the_store_its_bytes():
    data = store(600)
    before = data.images.copy()
    for batch in Stream(data, 64, 9, CPU).epoch(1):
        pixels = ((batch.images + 1) * 127.5).round().long()
        assert (pixels[:, 0, 0, 0] + 256 * pixels[:, 0, 0, 1]).tolist() == rows(batch)
        assert batch.labels.dtype == torch.int64
        batch.images.zero_()  # a batch is a copy
    assert np.array_equal(data.images, before)


def anonymous_memory():
    """Bytes of this process that no file stands behind."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("no RssAnon")


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc, and wants a file system with sparse files")
def test_a_store_larger_than_memory_is_opened_and_gives_batches(tmp_path):
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
    assert (tmp_path / "images.u8").stat().st_size > memory
    before = anonymous_memory()
    found = open_store(tmp_path)
    assert found is not None
    assert len(found) == count
    stream = Stream(found, 16, 0, CPU)
    batches = stream.epoch(1)
    for _ in range(3):
        assert next(batches).images.shape == (16, 3, side, side)
    assert stream.take(torch.tensor([count - 1])).images[0, 2, -1, -1].item() == 1.0
    assert anonymous_memory() - before < 2**28


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_small_store_lives_on_the_gpu_and_gives_the_same_batches():
    gpu = Stream(store(100), 10, 1, torch.device("cuda"))
    assert gpu.images.is_cuda
    for here, there in zip(Stream(store(100), 10, 1, CPU).epoch(2), gpu.epoch(2), strict=True):
        assert torch.equal(here.images, there.images.cpu())
        assert torch.equal(here.labels, there.labels.cpu())


@pytest.mark.parametrize(
    ("count", "share", "held_out"),
    [
        *((19, 0.2, 0), (20, 0.2, 12), (59, 0.2, 12), (60, 0.2, 12), (100, 0.2, 20), (1797, 0.2, 359)),
        *((1000, 0.5, 500), (60, 0.0, 0), (100, 0.01, 12)),
    ],
)
def test_a_share_is_held_out_but_at_least_twelve_where_eight_are_left(count, share, held_out):
    found = split(np.zeros(count, np.int64), share)
    assert len(found.held_out) == held_out
    assert sorted([*found.train, *found.held_out]) == list(range(count))
    assert np.array_equal(found.train, np.sort(found.train))


def test_every_class_gives_its_share_of_what_is_held_out_and_keeps_a_picture():
    labels = np.repeat(np.arange(5), [1, 40, 100, 200, 659])
    found = split(labels, 0.2)
    shares = np.bincount(labels[found.held_out], minlength=5) / np.bincount(labels)
    assert shares[0] == 0
    np.testing.assert_allclose(shares[1:], 0.2, atol=0.03)


def test_what_is_held_out_is_spread_over_the_data_and_the_same_every_time():
    labels = np.zeros(1000, np.int64)
    held_out = split(labels, 0.2).held_out
    assert np.array_equal(held_out, split(labels, 0.2).held_out)
    assert held_out[:10].tolist() == [0, 2, 4, 6, 7, 13, 15, 16, 18, 23]  # whatever the versions of the libraries
    counts = np.histogram(held_out, bins=5, range=(0, 1000))[0]
    assert counts.min() >= 25


def test_batches_are_made_of_the_given_rows_only():
    rows_of = np.array([3, 5, 7, 11, 13, 17, 19])
    stream = Stream(store(20), 3, 0, CPU, rows_of)
    shown = {row for number in range(1, 20) for row in flat(stream, number)}
    assert shown == set(rows_of.tolist())
    assert len(stream) == 2
