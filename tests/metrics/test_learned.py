"""Learned features: the same from the same data, further away the worse an image is, kept whole on disk."""

from __future__ import annotations

import copy
import pickle
import random
import re
import threading

import numpy as np
import pytest
import torch
from gantool import checkpoints
from gantool.data.sources import eggs
from gantool.errors import ResourceError
from gantool.metrics import learned as module
from gantool.metrics.distances import frechet_distance
from gantool.metrics.learned import Judge, Learned, cached, learn_labels, learn_views
from torch.nn.functional import avg_pool2d, interpolate

TRAIN, HELD_OUT = slice(0, 250), slice(900, 1350)


def scaled(images):
    return images.float() / 127.5 - 1


def noise(count, channels, *size):
    generator = torch.Generator().manual_seed(0)
    return torch.randint(256, (count, channels, *size), generator=generator, dtype=torch.uint8)


@pytest.fixture(scope="module")
def digits():
    """uint8 [1797, 1, 14, 14] and their classes, in a fixed order that mixes them."""
    loaded = pytest.importorskip("sklearn.datasets").load_digits()
    images = torch.from_numpy(loaded.images).float().unsqueeze(1) * (255 / 16)
    large = interpolate(images, size=(14, 14), mode="bilinear", align_corners=False).round().to(torch.uint8)
    order = torch.randperm(len(large), generator=torch.Generator().manual_seed(0))
    return large[order], torch.from_numpy(loaded.target)[order]


@pytest.fixture(scope="module")
def pretext(digits):
    return learn_views(digits[0][TRAIN], digits[0][HELD_OUT])


@pytest.fixture(scope="module")
def judge(digits):
    images, labels = digits
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


# What is learned.


def test_the_views_of_unseen_digits_are_told_apart(pretext):
    assert pretext.chance == pytest.approx(1 / 6)
    assert 0.8 <= pretext.accuracy <= 1
    assert pretext.usable


def test_the_classes_of_unseen_digits_are_told_apart(judge, digits):
    images, labels = digits
    assert judge.chance == pytest.approx(0.1)
    assert 0.88 <= judge.accuracy <= 1
    assert judge.usable
    shown = judge.probabilities(scaled(images[HELD_OUT]))
    assert shown.shape == (450, 10)
    torch.testing.assert_close(shown.sum(1), torch.ones(450))
    assert float((shown.argmax(1) == labels[HELD_OUT]).float().mean()) == pytest.approx(judge.accuracy, abs=0.01)


def test_the_classes_of_unseen_images_of_64_pixels_are_told_apart():
    pictures = [eggs.render(name, index, 64) for index in range(80) for name in eggs.CLASSES]
    images = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2)
    labels = torch.arange(400) % 5
    judge = learn_labels(images[:250], labels[:250], images[250:], labels[250:], 5)
    assert judge.accuracy >= 0.92


def test_views_of_images_without_an_orientation_are_not_usable():
    extract = learn_views(*torch.split(noise(200, 1, 14, 14), 100))
    assert extract.accuracy < 1.5 / 6
    assert not extract.usable


def test_a_view_is_a_turn_or_a_roll_by_half():
    image = torch.arange(16.0).reshape(1, 1, 4, 4)
    views = module._views(image)
    assert len(views) == 6
    assert len({tuple(view.flatten().tolist()) for view in views}) == 6
    assert all(sorted(view.flatten().tolist()) == list(range(16)) for view in views)
    assert views[2][0, 0, :, 0].tolist() == [8, 12, 0, 4]
    assert views[3][0, 0, 0].tolist() == [2, 3, 0, 1]


@pytest.mark.parametrize("size", [(8, 12), (12, 8)])
def test_images_that_are_not_square_have_the_four_views_that_keep_their_shape(quick, size):
    assert [tuple(view.shape[2:]) for view in module._views(torch.zeros(2, 3, *size))] == [size] * 4
    extract = learn_views(noise(10, 3, *size), noise(5, 3, *size))
    assert extract.chance == 0.25
    assert extract(scaled(noise(3, 3, *size))).shape == (3, 64)


def test_accuracy_counts_each_class_alike_so_that_guessing_the_commonest_gains_nothing(quick):
    images = torch.zeros(40, 1, 8, 8, dtype=torch.uint8)  # nothing to see: one answer for all
    labels = torch.tensor([0] * 36 + [1] * 4)
    judge = learn_labels(images, labels, images, labels, 2)
    assert judge.accuracy == pytest.approx(0.5)
    assert not judge.usable


def test_without_held_out_images_the_accuracy_is_unknown_and_nothing_is_usable(quick):
    images, labels = noise(20, 1, 8, 8), torch.arange(20) % 2
    for extract in (learn_views(images, images[:0]), learn_labels(images, labels, images[:0], labels[:0], 2)):
        assert np.isnan(extract.accuracy)
        assert not extract.usable


# What features are.


def test_features_are_64_float32_numbers_on_the_cpu_without_a_graph(extract, digits):
    made = extract(scaled(digits[0][:5]).requires_grad_())
    assert (made.shape, made.dtype, made.device.type) == ((5, 64), torch.float32, "cpu")
    assert not made.requires_grad
    assert not any(parameter.requires_grad for parameter in extract.network.parameters())


@pytest.mark.parametrize("size", [1, 7, 64, 300])
def test_features_do_not_depend_on_how_images_are_batched(extract, digits, size):
    images = scaled(digits[0][:300])
    together = extract(images)
    apart = torch.cat([extract(chunk) for chunk in torch.split(images, size)])
    assert float((apart - together).norm() / together.norm()) < 1e-4
    reference = extract(scaled(digits[0][HELD_OUT]))
    assert frechet_distance(reference, apart) == pytest.approx(frechet_distance(reference, together), rel=1e-4)


def test_from_250_images_on_each_feature_has_its_own_scale(extract, digits):
    fitted = extract(scaled(digits[0][TRAIN]))
    torch.testing.assert_close(fitted.mean(0), torch.zeros(64), rtol=0, atol=1e-4)
    deviation = fitted.std(0, correction=0)
    assert bool((deviation <= 1 + 1e-4).all())
    assert float(deviation.median()) == pytest.approx(1, abs=1e-4)
    assert len(set(extract.deviation.tolist())) > 32


def test_below_250_images_all_features_have_one_scale(quick):
    for count, scales in ((249, 1), (250, 64)):
        extract = quick(count=count)
        assert len(set(extract.deviation.tolist())) == scales
    few = quick(count=100)
    assert float(few(scaled(noise(100, 1, 8, 8))).var(0, correction=0).mean()) == pytest.approx(1, rel=1e-3)


def test_features_are_taken_before_their_activation_so_that_none_is_dead(extract, digits):
    made = extract(scaled(digits[0][HELD_OUT]))
    raw = made * extract.deviation + extract.mean
    assert float(raw.min()) < 0
    assert float(made.std(0).min()) > 0.1


@pytest.mark.parametrize("count", [1, 4, 20])
def test_few_training_images_do(quick, count):
    images, labels = noise(count, 3, 9, 9), torch.arange(count) % 2
    for extract in (learn_views(images, images), learn_labels(images, labels, images, labels, 2)):
        assert bool(extract(scaled(noise(7, 3, 9, 9))).isfinite().all())


def test_images_that_are_all_the_same_have_finite_features(quick):
    images = torch.full((30, 1, 8, 8), 90, dtype=torch.uint8)
    assert bool(learn_views(images, images)(scaled(noise(7, 1, 8, 8))).isfinite().all())


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (63, 65), (64, 64), (70, 130), (100, 100), (127, 128), (150, 140)])
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


# The same again, and nothing else changed.


def test_the_same_images_and_seed_give_the_same_features_whatever_the_number_of_threads(quick):
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        first = quick()
        torch.set_num_threads(2)
        with torch.no_grad():
            again = quick()
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)
    assert again.identity == first.identity
    images = scaled(noise(9, 1, 8, 8))
    assert torch.equal(first(images), again(images))
    assert (again.accuracy, again.chance) == (first.accuracy, first.chance)


def test_the_identity_names_the_kind_and_changes_with_seed_weights_and_scale(quick, judge):
    extract = quick()
    kind, _, digits = extract.identity.partition("-")
    assert kind == "pretext"
    assert len(digits) == 12
    assert set(digits) <= set("0123456789abcdef")
    assert judge.identity.startswith("judge-")
    other, rescaled = copy.deepcopy(extract), copy.deepcopy(extract)
    other.network.features[3].weight[3, 2, 1, 0] += 1e-6
    rescaled.deviation[5] *= 2
    names = [extract.identity, quick(seed=1).identity, quick(count=21).identity, other.identity, rescaled.identity]
    assert len(set(names)) == 5


def test_learning_and_extracting_leave_all_random_numbers_and_settings_alone(quick, tmp_path):
    def outside():
        torch_state, numpy_state = torch.get_rng_state().tolist(), np.random.get_state()[1].tolist()
        return torch_state, numpy_state, random.getstate(), torch.get_num_threads(), torch.is_grad_enabled()

    before = outside()
    images, labels = noise(20, 1, 8, 8), torch.arange(20) % 2
    judge = learn_labels(images, labels, images, labels, 2)
    judge(scaled(images))
    judge.probabilities(scaled(images))
    for _ in range(2):  # learned, then read
        cached(tmp_path, "views", quick)
    assert outside() == before


def test_what_is_drawn_before_changes_nothing(quick):
    torch.manual_seed(1)
    first = quick().identity
    torch.manual_seed(2)
    assert quick().identity == first


def test_an_extractor_can_be_sent_to_another_process(extract, digits):
    images = scaled(digits[0][:9])
    sent = pickle.loads(pickle.dumps(extract))
    assert torch.equal(sent(images), extract(images))
    assert sent.identity == extract.identity


# Further away, the worse an image is.


def blurred(images, _, level):
    for _ in range(level):
        images = avg_pool2d(images, 3, 1, 1, count_include_pad=False)
    return images


def noisy(images, _, level):
    drawn = torch.randn(images.shape, generator=torch.Generator().manual_seed(1))
    return (images + 0.12 * level * drawn).clamp(-1, 1)


def flatter(images, _, level):
    mean = images.mean((1, 2, 3), keepdim=True)
    return mean + (images - mean) * (1 - 0.15 * level)


def fewer_classes(images, labels, level):
    return images[labels < (10, 8, 6, 4, 2, 1)[level]]


def collapsed(images, _, level):
    return images[torch.arange(len(images)) % (450, 60, 20, 8, 3, 1)[level]]


@pytest.mark.parametrize("worsened", [blurred, noisy, flatter, fewer_classes, collapsed])
def test_the_worse_images_become_the_further_they_are(digits, extract, worsened):
    images, labels = digits
    real, unseen = extract(scaled(images[TRAIN])), scaled(images[HELD_OUT])
    distances = [frechet_distance(real, extract(worsened(unseen, labels[HELD_OUT], level))) for level in range(6)]
    ranks = np.argsort(np.argsort(distances))
    assert np.corrcoef(ranks, range(6))[0, 1] >= 0.9, distances
    assert distances[5] > 3 * distances[0]
    assert distances[0] < 4  # real against real: no feature is blown up


# Kept on disk.


def refuse():
    raise AssertionError("it is on disk, and was learned again")


def visible(folder):
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))


@pytest.fixture
def kept(quick, tmp_path):
    return cached(tmp_path / "a" / "b", "views-7", quick), tmp_path / "a" / "b" / "views-7.pt"


def test_what_was_learned_is_read_instead_of_learned_again(kept, judge, digits):
    extract, path = kept
    again = cached(path.parent, "views-7", refuse)
    assert type(again) is Learned
    assert again.identity == extract.identity
    images = scaled(noise(9, 1, 8, 8))
    assert torch.equal(again(images), extract(images))
    assert (again.accuracy, again.chance) == (extract.accuracy, extract.chance)
    assert not any(parameter.requires_grad for parameter in again.network.parameters())

    cached(path.parent, "judge-7", lambda: judge)
    other = cached(path.parent, "judge-7", refuse)
    assert type(other) is Judge
    images = scaled(digits[0][:9])
    assert torch.equal(other.probabilities(images), judge.probabilities(images))
    assert visible(path.parent) == ["judge-7.pt", "views-7.pt"]


def cut(path):
    path.write_bytes(path.read_bytes()[:-9])


def flipped(path):
    data = bytearray(path.read_bytes())
    data[-2000] ^= 1
    path.write_bytes(data)


def emptied(path):
    path.write_bytes(b"")


def foreign(path):
    checkpoints.save(path, {"model": torch.ones(3)})


def bare(path):
    checkpoints.save(path, [1, 2])


def older(path):
    checkpoints.save(path, checkpoints.load(path) | {"version": module.VERSION - 1})


def unknown(path):
    checkpoints.save(path, checkpoints.load(path) | {"name": "oracle"})


def reshaped(path):
    checkpoints.save(path, checkpoints.load(path) | {"sizes": (1, 8, 7)})


@pytest.mark.parametrize("spoil", [cut, flipped, emptied, foreign, bare, older, unknown, reshaped])
def test_a_file_that_is_of_no_use_is_made_anew(kept, quick, spoil):
    extract, path = kept
    spoil(path)
    assert cached(path.parent, "views-7", quick).identity == extract.identity
    assert cached(path.parent, "views-7", refuse).identity == extract.identity


def test_when_several_ask_at_once_one_learns_and_the_others_wait(quick, tmp_path):
    extract, made, found = quick(), [], []
    together = threading.Barrier(3)

    def make():
        made.append(1)
        return extract

    def ask():
        together.wait()
        found.append(cached(tmp_path, "views", make).identity)

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert made == [1]
    assert found == [extract.identity] * 3


def test_a_failure_while_learning_leaves_no_file_and_no_lock(quick, tmp_path):
    def fail():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cached(tmp_path, "views", fail)
    assert visible(tmp_path) == []
    assert cached(tmp_path, "views", quick).identity == quick().identity


def test_a_folder_that_cannot_be_made_is_told(quick, tmp_path):
    (tmp_path / "file").write_bytes(b"")
    place = re.escape(str(tmp_path / "file" / "below"))
    with pytest.raises(
        ResourceError, match=rf"^{place}: cannot be written \(.+\); check the folder and its permissions$"
    ):
        cached(tmp_path / "file" / "below", "views", quick)
