"""Learned features: equal for equal images, independent of everything else, and cached on disk."""

from __future__ import annotations

import copy
import math
import re
import threading

import numpy as np
import pytest
import torch
from gantool import checkpoints
from gantool.errors import DiskError
from gantool.images import to_float
from gantool.metrics import learned as module
from gantool.metrics.distances import frechet_distance
from gantool.metrics.learned import Judge, Learned, cached, learn_labels, learn_views

from digits import digits
from old import save_old
from processes import visible
from stores import no_random_numbers

TRAIN, HELD_OUT = slice(0, 250), slice(900, 1350)


def noise(count, channels, *size):
    generator = torch.Generator().manual_seed(0)
    return torch.randint(256, (count, channels, *size), generator=generator, dtype=torch.uint8)


@pytest.fixture(scope="module")
def pretext():
    images, _ = digits()
    return learn_views(images[TRAIN], images[HELD_OUT])


@pytest.fixture(scope="module")
def judge():
    images, labels = digits()
    return learn_labels(images[TRAIN], labels[TRAIN], images[HELD_OUT], labels[HELD_OUT], 10)


@pytest.fixture(params=["pretext", "judge"])
def extract(request):
    return request.getfixturevalue(request.param)


@pytest.fixture(scope="module")
def quick():
    """An extractor that is learned in a moment."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "STEPS", 3)
        yield lambda seed=0, count=20: learn_views(noise(count, 1, 8, 8), noise(5, 1, 8, 8), seed=seed)


# Learning


def test_views_and_classes_of_unseen_digits_are_recognised(pretext, judge):
    images, labels = digits()
    assert (pretext.chance, judge.chance) == (pytest.approx(1 / 6), pytest.approx(0.1))
    assert 0.8 <= pretext.accuracy <= 1
    assert 0.88 <= judge.accuracy <= 1
    assert (pretext.usable, judge.usable) == (True, True)
    shown = judge.probabilities(to_float(images[HELD_OUT]))
    torch.testing.assert_close(shown.sum(1), torch.ones(450))
    assert float((shown.argmax(1) == labels[HELD_OUT]).float().mean()) == pytest.approx(judge.accuracy, abs=0.01)


def test_views_of_images_without_an_orientation_are_not_usable():
    extract = learn_views(*torch.split(noise(200, 1, 14, 14), 100))
    assert extract.accuracy < 1.5 / 6
    assert not extract.usable


def test_a_view_is_a_turn_or_a_shift_by_half_that_keeps_the_shape():
    image = torch.arange(16.0).reshape(1, 1, 4, 4)
    views = module._views(image)
    assert len({tuple(view.flatten().tolist()) for view in views}) == len(views) == 6
    assert all(sorted(view.flatten().tolist()) == list(range(16)) for view in views)
    assert views[2][0, 0, :, 0].tolist() == [8, 12, 0, 4]
    assert views[3][0, 0, 0].tolist() == [2, 3, 0, 1]
    assert [tuple(view.shape[2:]) for view in module._views(torch.zeros(2, 3, 8, 12))] == [(8, 12)] * 4


def test_accuracy_is_the_mean_over_classes_so_that_guessing_the_commonest_gains_nothing(quick):
    images = torch.zeros(40, 1, 8, 8, dtype=torch.uint8)  # equal images have one answer
    labels = torch.tensor([0] * 36 + [1] * 4)
    judge = learn_labels(images, labels, images, labels, 2)
    assert judge.accuracy == pytest.approx(0.5)
    assert not judge.usable


def test_without_held_out_images_the_accuracy_is_unknown_and_nothing_is_usable(quick):
    images, labels = noise(20, 1, 8, 8), torch.arange(20) % 2
    for extract in (learn_views(images, images[:0]), learn_labels(images, labels, images[:0], labels[:0], 2)):
        assert np.isnan(extract.accuracy)
        assert not extract.usable


# Features


@pytest.mark.parametrize("size", [1, 7])
def test_features_are_64_numbers_without_a_graph_that_do_not_depend_on_the_batches(extract, size):
    images = to_float(digits()[0][:300]).requires_grad_()
    together = extract(images)
    assert (together.shape, together.dtype, together.requires_grad) == ((300, 64), torch.float32, False)
    apart = torch.cat([extract(chunk) for chunk in torch.split(images, size)])
    assert float((apart - together).norm() / together.norm()) < 1e-4
    reference = extract(to_float(digits()[0][HELD_OUT]))
    assert frechet_distance(reference, apart) == pytest.approx(frechet_distance(reference, together), rel=1e-4)


def test_from_250_images_on_each_feature_has_its_own_scale_and_none_is_dead(extract, quick):
    fitted = extract(to_float(digits()[0][TRAIN]))
    torch.testing.assert_close(fitted.mean(0), torch.zeros(64), rtol=0, atol=1e-4)
    deviation = fitted.std(0, correction=0)
    assert bool((deviation <= 1 + 1e-4).all())
    assert float(deviation.median()) == pytest.approx(1, abs=1e-4)
    unseen = extract(to_float(digits()[0][HELD_OUT]))
    assert float((unseen * extract.deviation + extract.mean).min()) < 0  # before the activation
    assert float(unseen.std(0).min()) > 0.1
    for count, scales in ((249, 1), (250, 64)):
        assert len(set(quick(count=count).deviation.tolist())) == scales


@pytest.mark.parametrize("count", [1, 20])
def test_few_or_equal_images_have_finite_features(quick, count):
    images, labels = noise(count, 3, 9, 9), torch.arange(count) % 2
    equal = torch.full((30, 3, 9, 9), 90, dtype=torch.uint8)
    made = (learn_views(images, images), learn_labels(images, labels, images, labels, 2), learn_views(equal, equal))
    for extract in made:
        assert bool(extract(to_float(noise(7, 3, 9, 9))).isfinite().all())


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (63, 65), (64, 64), (100, 100), (150, 140)])
def test_images_of_any_size_have_features_that_see_every_pixel(size):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = module._Network(1, min(size), 2)
        image = torch.rand(1, 1, *size, requires_grad=True)
    first = network.features[0]
    first(image).square().sum().backward()
    assert bool((image.grad != 0).all())
    assert network.features(image).shape == (1, 64)
    if min(size) >= 64:
        assert 32 <= min(first(image).shape[2:]) <= 49


# Equal again, and nothing else changed


def test_equal_images_and_seed_have_equal_features_for_any_threads_and_random_numbers_outside(quick):
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        torch.manual_seed(1)
        first = quick()
        torch.set_num_threads(2)
        torch.manual_seed(2)
        with torch.no_grad():
            again = quick()
    finally:
        torch.set_num_threads(threads)
    images = to_float(noise(9, 1, 8, 8))
    assert torch.equal(first(images), again(images))
    assert (again.identity, again.accuracy, again.chance) == (first.identity, first.accuracy, first.chance)


def test_the_identity_names_the_kind_and_changes_with_seed_weights_and_scale(quick, judge):
    extract = quick()
    assert re.fullmatch("pretext-[0-9a-f]{12}", extract.identity)
    assert judge.identity.startswith("judge-")
    other, rescaled = copy.deepcopy(extract), copy.deepcopy(extract)
    other.network.features[3].weight[3, 2, 1, 0] += 1e-6
    rescaled.deviation[5] *= 2
    names = [extract.identity, quick(seed=1).identity, quick(count=21).identity, other.identity, rescaled.identity]
    assert len(set(names)) == 5


def test_learning_and_extracting_leave_all_random_numbers_and_settings_alone(quick, tmp_path):
    images, labels = noise(20, 1, 8, 8), torch.arange(20) % 2
    with no_random_numbers():
        judge = learn_labels(images, labels, images, labels, 2)
        judge(to_float(images))
        judge.probabilities(to_float(images))
        for _ in range(2):  # learned, then read
            cached(tmp_path, "views", quick)


# The files


def refuse():
    raise AssertionError("it is on disk, and was learned again")


@pytest.fixture
def kept(quick, tmp_path):
    return cached(tmp_path / "a" / "b", "views-7", quick), tmp_path / "a" / "b" / "views-7.pt"


def test_a_learned_extractor_is_read_from_disk_instead_of_learned_again(kept, judge):
    views, path = kept
    cached(path.parent, "judge-7", lambda: judge)
    for wanted, key, kind, images in (
        (views, "views-7", Learned, noise(9, 1, 8, 8)),
        (judge, "judge-7", Judge, digits()[0][:9]),
    ):
        again = cached(path.parent, key, refuse)
        assert type(again) is kind
        assert torch.equal(again(to_float(images)), wanted(to_float(images)))
        found, expected = ((one.identity, one.accuracy, one.chance) for one in (again, wanted))
        assert found == expected
        assert not any(parameter.requires_grad for parameter in again.network.parameters())
    assert visible(path.parent) == ["judge-7.pt", "views-7.pt"]


@pytest.mark.parametrize(
    "spoil",
    [
        lambda path: path.write_bytes(path.read_bytes()[:-9]),
        lambda path: checkpoints.save(path, {"model": torch.ones(3)}),
        lambda path: checkpoints.save(path, {"values": [1, 2]}),
        lambda path: checkpoints.save(path, checkpoints.load(path) | {"version": module.VERSION - 1}),
        lambda path: checkpoints.save(path, checkpoints.load(path) | {"name": "oracle"}),
        lambda path: checkpoints.save(path, checkpoints.load(path) | {"sizes": [1, 8, 7]}),
        lambda path: checkpoints.save(path, checkpoints.load(path) | {"mean": torch.full((64,), math.nan)}),
        lambda path: checkpoints.save(path, checkpoints.load(path) | {"deviation": torch.zeros(64)}),
        lambda path: checkpoints.save(path, checkpoints.load(path) | {"accuracy": 1.5}),
        lambda path: save_old(path, checkpoints.load(path)),
    ],
    ids=["cut", "foreign", "list", "older", "unknown", "reshaped", "nan", "flat", "accuracy", "of 0.1"],
)
def test_a_damaged_or_outdated_file_is_replaced(kept, quick, spoil):
    extract, path = kept
    spoil(path)
    assert cached(path.parent, "views-7", quick).identity == extract.identity
    assert cached(path.parent, "views-7", refuse).identity == extract.identity


def test_if_several_need_it_at_once_one_learns_and_the_others_wait(quick, tmp_path):
    extract, made, found = quick(), [], []
    together = threading.Barrier(3)

    def need():
        together.wait()
        found.append(cached(tmp_path, "views", lambda: made.append(1) or extract).identity)

    threads = [threading.Thread(target=need) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert made == [1]
    assert found == [extract.identity] * 3


def test_a_failure_while_learning_leaves_no_file_and_an_impossible_directory_is_named(quick, tmp_path):
    def fail():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cached(tmp_path, "views", fail)
    assert visible(tmp_path) == []
    (tmp_path / "file").write_bytes(b"")
    place = re.escape(str(tmp_path / "file" / "below"))
    with pytest.raises(DiskError, match=rf"^{place}: cannot be written \(.+\); check the folder and its permissions$"):
        cached(tmp_path / "file" / "below", "views", quick)
