"""Measuring a generator: always on the same real images, latents and labels, and without touching its training."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from gantool.batches import Paired, Unpaired
from gantool.data.loader import Split, rows_of, split
from gantool.data.sources.eggs import render
from gantool.images import to_float, to_uint8
from gantool.metrics import distances
from gantool.metrics import learned as learned_features
from gantool.metrics.evaluate import Evaluator, SampleRequest, _at_most
from gantool.metrics.reference import SEED, ReferenceSet, learn
from scipy.stats import binom, spearmanr

from digits import digits
from refusals import refusal
from stores import no_random_numbers, store_of


def store(count=300, classes=3, shape=(1, 8, 8)):
    pick = np.random.default_rng(0)
    images = pick.integers(0, 256, (count, *shape), dtype=np.uint8)
    labels = np.sort(pick.integers(0, classes, count)) if classes > 1 else None
    return store_of(images, labels, [f"class {index}" for index in range(classes)])


def reality_of(data, share=0.2):
    return ReferenceSet.of(data, split(data.labels, share))


def with_rand(reality, request, **rest):
    """Return an evaluator by the extractor that needs no learning."""
    return Evaluator(reality, learn(reality, ["rand"], None, "key"), request, **rest)


def evaluator(data, count, share=0.2, **rest):
    return with_rand(reality_of(data, share), count, **rest)


def replay(data):
    """Return a generator of the store's own images."""
    return lambda request: to_float(torch.from_numpy(data.images))[[seed % len(data) for seed in request.seeds]]


def noise(request):
    rows = [torch.rand(1, 8, 8, generator=torch.Generator().manual_seed(seed)) * 2 - 1 for seed in request.seeds]
    return torch.stack(rows)


def black(request):
    return torch.full((len(request), 1, 8, 8), -1.0)


@pytest.fixture(scope="module")
def real_digits():
    """Real digits of 14x14 pixels, with their labels."""
    images, labels = digits()
    return store_of(images.numpy(), labels.numpy(), map(str, range(10)))


@pytest.fixture(scope="module")
def learned(real_digits, tmp_path_factory):
    """The digits as real images, and the extractors that `auto` learns from them."""
    reality = reality_of(real_digits)
    return reality, learn(reality, "auto", tmp_path_factory.mktemp("extractors"), "digits")


def test_real_images_are_nearer_than_noise_and_noise_nearer_than_black():
    data = store()
    evaluate = evaluator(data, 300, share=0.0)
    own, other, worst = (evaluate(sample).metrics["fd"] for sample in (replay(data), noise, black))
    assert own == pytest.approx(0, abs=1e-3)
    assert own < other < worst
    assert evaluate(lambda request: black(request) * math.nan) == evaluate(black)


def test_seeds_and_labels_are_the_same_in_every_measurement_and_never_too_many_at_once():
    requests, data = [], store()

    def sample(request):
        requests.append((request.seeds, request.labels))
        return noise(request)

    evaluate = evaluator(data, 4000)
    first = evaluate(sample)
    count = len(requests)
    torch.randn(5)
    assert evaluate(sample) == evaluator(data, 4000)(noise) == first
    assert requests[:count] == requests[count:]
    assert max(len(seeds) for seeds, _ in requests) <= 256
    assert [seed for some, _ in requests[:count] for seed in some] == list(range(SEED, SEED + 4000))
    labels = [label for _, some in requests[:count] for label in some]
    np.testing.assert_allclose(np.bincount(labels) / 4000, np.bincount(data.labels) / 300, atol=0.03)


def test_generated_images_are_measured_in_the_8_bits_that_are_written():
    evaluate = evaluator(store(), 100)
    wanted = evaluate(lambda request: to_float(to_uint8(noise(request))))
    assert evaluate(noise) == wanted
    assert evaluate(lambda request: to_float(to_uint8(noise(request))) + 0.001) == wanted


def test_the_conditions_of_a_measurement_are_logged():
    about = evaluator(store(), 100).about
    assert about["extractors"] == ["rand-85074021dfc2"]
    assert (about["real"], about["held_out"], about["fake"]) == (240, 60, 100)
    assert (about["size"], about["seed"]) == ("1x8x8", SEED)
    assert (about["split"], about["resize"]) == (0.2, "centre crop, antialiased bicubic")
    assert about["units"].keys() == {"rand"}
    assert about["units"]["rand"] > 0
    assert 0 < about["floor_deviation"] < 1
    assert evaluator(store(shape=(3, 8, 8)), 16).about["extractors"] == ["rand-cb3208355902"]
    many = evaluator(store(count=7000, classes=1), 16).about
    assert (many["real"], many["held_out"]) == (5000, 1000)


@pytest.mark.parametrize("count", [1, 2, 19, 20])
def test_a_handful_of_real_images_is_enough(count):
    metrics = evaluator(store(count=count, classes=1), 16)(noise).metrics
    assert 0 <= metrics["fd"] < math.inf
    assert ("copying" in metrics) == (count == 20)


# The floor


def test_fd_of_real_images_is_1_for_any_number_of_them():
    normal = np.random.default_rng(0)
    everything = np.clip(normal.normal(128, 40, (9000, 1, 8, 8)), 0, 255).astype(np.uint8)
    for count, fakes in ((200, 300), (1000, 500)):
        evaluate = evaluator(store_of(everything[:count]), fakes)
        others = [torch.from_numpy(everything[start : start + fakes]) for start in range(2000, 7000, fakes)]
        found = [evaluate.measure(other).metrics for other in others]
        assert np.mean([one["fd"] for one in found]) == pytest.approx(1, rel=0.25)
        assert 0 < evaluate.floor.deviation < 1
        assert all(one["fd_deviation"] >= evaluate.floor.deviation for one in found)


def test_three_images_have_no_floor_and_their_distances_have_no_unit():
    evaluate = evaluator(store(count=3, classes=1), 16)
    assert evaluate.floor.units == {"rand": 1.0}
    assert evaluate.about["floor_deviation"] is None
    found = evaluate.extractors["rand"](to_float(evaluate.generate(noise)))
    assert evaluate(noise).metrics["fd"] == pytest.approx(distances.frechet_distance(evaluate.real["rand"], found))


def test_the_deviation_is_that_of_fd_over_other_draws_of_the_images():
    everything = np.random.default_rng(0).normal(128, 40, (12_000, 1, 8, 8))
    real, dim = everything.clip(0, 255).astype(np.uint8), (0.7 * everything + 50).clip(0, 255).astype(np.uint8)
    found = []
    for start in range(0, 12_000, 600):
        evaluate = evaluator(store_of(real[start : start + 300]), 300, share=0.0)
        unit = evaluate.floor.units["rand"]
        found.append((evaluate.measure(torch.from_numpy(dim[start + 300 : start + 600])).metrics, unit))
    spread = np.std([one["fd"] * unit for one, unit in found], ddof=1)
    expected = np.mean([one["fd_deviation"] * unit for one, unit in found])
    assert expected == pytest.approx(spread, rel=0.5)


# Choice of extractors


def test_auto_chooses_by_the_number_of_images_and_classes_and_learns_once(real_digits, tmp_path, logged, monkeypatch):
    monkeypatch.setattr(learned_features, "STEPS", 3)
    monkeypatch.setattr(learned_features.Learned, "usable", True)

    def chosen(count, classes):
        rows = np.flatnonzero(real_digits.labels < classes)[:count]
        part = store_of(real_digits.images[rows], real_digits.labels[rows], map(str, range(classes)))
        return list(learn(reality_of(part), "auto", tmp_path, f"{count}-{classes}"))

    assert chosen(59, 10) == ["rand", "texture"]
    for _ in range(2):
        assert chosen(60, 10) == ["rand", "texture", "pretext"]
    assert logged == ["learning the features of `pretext` from the images, once"]
    assert chosen(300, 2) == ["rand", "texture", "pretext", "judge"]
    assert chosen(170, 1) == ["rand", "texture", "pretext"]


def test_a_judge_of_one_class_is_refused(tmp_path):
    assert refusal(learn, reality_of(store(classes=1)), ["rand", "judge"], tmp_path, "key", code=2) == (
        "train.extractors: judge learns to tell classes apart, but there is only 'class 0'; use rand or pretext"
    )


def test_fd_is_the_weighted_geometric_mean_of_its_parts_in_floors(real_digits, learned):
    reality, extractors = learned
    evaluate = Evaluator(reality, extractors, 200)
    metrics = evaluate(replay(real_digits)).metrics
    weighted = [("rand", 4), ("texture", 1), ("pretext", 2), ("judge", 2)]
    assert metrics["fd"] == pytest.approx(math.prod(metrics[f"fd_{name}"] ** (count / 9) for name, count in weighted))
    only = Evaluator(reality, {"judge": extractors["judge"]}, 200)(replay(real_digits)).metrics
    assert only["fd"] == pytest.approx(metrics["fd_judge"])
    units = evaluate.floor.units
    first = math.sqrt(metrics["fd_rand"] * units["rand"] * metrics["fd_pretext"] * units["pretext"])
    assert evaluate.first_version(metrics) == pytest.approx(first)


def test_threads_and_random_numbers_outside_neither_change_a_digit_nor_are_changed(real_digits, learned):
    reality, extractors = learned

    def measured():
        evaluate = Evaluator(reality, extractors, 300, conditional=True)
        return evaluate.about, evaluate(replay(real_digits))

    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        alone = measured()
        torch.set_num_threads(4)
        torch.randn(3)
        with no_random_numbers():
            assert measured() == alone
    finally:
        torch.set_num_threads(threads)


def test_a_conditional_generator_is_measured_within_each_class(real_digits, learned):
    reality, extractors = learned
    rand = {"rand": extractors["rand"]}
    evaluate = Evaluator(reality, rand, 1000, conditional=True)
    assert evaluate.about["within_classes"]
    rows = torch.arange(1000) % len(reality.train)
    fake, labels = reality.train[rows], reality.train_labels[rows]
    right, wrong = (evaluate.measure(fake, given.tolist()).metrics["fd"] for given in (labels, (labels + 1) % 10))
    real = evaluate.real["rand"]
    parts = [
        distances.frechet_distance(real[reality.train_labels == one], real[rows][labels == one]) for one in range(10)
    ]
    assert right * evaluate.floor.units["rand"] == pytest.approx(np.mean(parts), rel=1e-4)
    assert wrong > 20 * right
    pooled = Evaluator(reality, rand, 1000)
    assert pooled.measure(fake).metrics["fd"] == pooled.measure(fake, ((labels + 1) % 10).tolist()).metrics["fd"]
    assert not Evaluator(reality, rand, 300, conditional=True).about["within_classes"]  # 30 of each class are too few
    unseen = evaluate.measure(reality.held_out, reality.held_out_labels.tolist()).metrics["fd"]
    assert 1 < unseen < 6  # 36 of each class, where the floor is of 100


# What fd cannot say


def test_copies_differ_from_unseen_real_images(learned):
    reality, extractors = learned
    evaluate = Evaluator(reality, {"rand": extractors["rand"]}, 400)
    copies = evaluate.measure(reality.train[:400]).metrics
    unseen = evaluate.measure(reality.held_out[:300]).metrics
    assert copies["fd"] < unseen["fd"]  # which is why it needs a guard
    assert copies["copying"] < -3
    assert copies["copied"] == 1
    assert abs(unseen["copying"]) < 3
    assert unseen["copied"] < 0.1
    few = evaluate.measure(reality.held_out[:20].repeat(20, 1, 1, 1)).metrics
    assert few["support"] < 25 < unseen["support"]


def test_the_judge_counts_how_often_the_requested_class_is_shown(learned):
    reality, extractors = learned
    evaluate = Evaluator(reality, extractors, 359, conditional=True)
    right = evaluate.measure(reality.held_out, reality.held_out_labels.tolist())
    wrong = evaluate.measure(reality.held_out, ((reality.held_out_labels + 1) % 10).tolist())
    assert right.metrics["judge_accuracy"] > 0.85
    assert wrong.metrics["judge_accuracy"] < 0.1
    assert "judge_accuracy" not in Evaluator(reality, extractors, 50).measure(reality.held_out, [0] * 359).metrics


def test_a_class_that_is_never_shown_is_named(learned):
    reality, extractors = learned
    evaluate = Evaluator(reality, extractors, 300)
    assert evaluate.measure(reality.held_out).lost_classes == ()
    kept = reality.held_out[(reality.held_out_labels != 4) & (reality.held_out_labels != 7)]
    assert set(evaluate.measure(kept).lost_classes) == {"4", "7"}


def test_the_chance_of_so_few_hits_is_that_of_the_binomial_distribution():
    for numbers in ((0, 300, 0.1), (12, 40, 0.5), (5, 5, 1.0)):
        assert _at_most(*numbers) == pytest.approx(binom.cdf(*numbers), rel=1e-9)


# Ladders: the default metric grows with every visible step away from real images


def blurred(images, degree):
    kernel = torch.exp(-torch.arange(-4, 5).float().square() / (2 * (0.5 * degree) ** 2))
    kernel = (kernel / kernel.sum()).expand(images.shape[1], 1, 1, -1)
    padded = torch.nn.functional.pad(images, (4, 4, 4, 4), "replicate")
    across = torch.nn.functional.conv2d(padded, kernel, groups=images.shape[1])
    return torch.nn.functional.conv2d(across, kernel.transpose(2, 3), groups=images.shape[1])


def noisy(images, degree):
    return images + 0.12 * degree * torch.randn(images.shape, generator=torch.Generator().manual_seed(0))


LADDERS = {"blur": blurred, "noise": noisy, "contrast": lambda images, degree: images * (1 - 0.15 * degree)}


@pytest.fixture(scope="module", params=["digits", "eggs"])
def on_ladder(request, real_digits, tmp_path_factory):
    """An evaluator of digits, or of two classes of rendered images of 3x32x32."""
    data, names = real_digits, ("Egg", "Tomato")
    if request.param == "eggs":
        images = np.stack([render(name, index, 32).transpose(2, 0, 1) for index in range(300) for name in names])
        data = store_of(images, np.tile([0, 1], 300), names)
    reality = reality_of(data)
    folder = tmp_path_factory.mktemp("extractors")
    return Evaluator(reality, learn(reality, ["rand", "texture", "pretext"], folder, "key"), 120)


@pytest.mark.parametrize("ladder", [*LADDERS, "classes", "copies"])
def test_fd_climbs_every_step_of_the_ladder_and_so_do_its_parts_nearly(ladder, on_ladder):
    reality = on_ladder.reality
    new, labels = reality.held_out[:300], reality.held_out_labels[:300]
    if ladder in LADDERS:
        steps = [new, *(to_uint8(LADDERS[ladder](to_float(new), degree)) for degree in range(1, 7))]
    elif ladder == "classes":
        counts = range(len(reality.classes), 0, -3) if len(reality.classes) > 2 else (2, 1)
        steps = [new[labels < kept] for kept in counts]
    else:
        steps = [new[torch.arange(len(new)) % kept] for kept in (len(new), 50, 20, 8, 3)]

    found = [on_ladder.measure(step).metrics for step in steps]

    assert [one["fd"] for one in found] == sorted(one["fd"] for one in found)
    for part in ("fd_rand", "fd_pretext"):
        assert spearmanr(range(len(found)), [one[part] for one in found]).statistic >= 0.85, part


# Translations


def rows_in(data, images):
    """Return the rows of a store that images are."""
    known = {image.tobytes(): row for row, image in enumerate(data.images)}
    return [known[image.numpy().tobytes()] for image in images]


def pairs(count=400):
    """Pairs of dark images, none brighter than 200."""
    images = np.random.default_rng(0).integers(0, 200, (count, 1, 8, 8), dtype=np.uint8)
    return store_of(images, np.tile([0, 1], count // 2), ("drawing", "photo"))


def two_kinds(count=400):
    """Images of two kinds: dark ones, and their negatives."""
    dark = pairs(count).images // 2
    labels = np.repeat([0, 1], count // 2)
    return store_of(np.where(labels[:, None, None, None], 255 - dark, dark), labels, ("drawing", "photo"))


def translating(data, kind, most=200, share=0.2):
    rows = rows_of(data.labels, share, kind)
    reality = ReferenceSet.of(data, rows, kind)
    request = SampleRequest.translations(data, rows, kind, most)
    return with_rand(reality, request, conditional=kind is Unpaired), request


@pytest.mark.parametrize("most", [10, 1000])
@pytest.mark.parametrize("kind", [Paired, Unpaired])
def test_held_out_images_are_the_sources_of_translations(kind, most):
    data = pairs() if kind is Paired else two_kinds()
    rows = rows_of(data.labels, 0.2, kind)
    with no_random_numbers():
        request, again = (SampleRequest.translations(data, rows, kind, most) for _ in (0, 1))

    found = rows_in(data, request.sources)
    assert set(found) <= set(rows.held_out)
    assert len(set(found)) == len(request) == min(most, len(rows.held_out))
    assert request.seeds == list(range(len(request)))
    assert torch.equal(request.sources, again.sources)
    if kind is Paired:
        assert rows_in(data, request.targets) == [row + 1 for row in found]
        assert request.labels == [0] * len(request)
    else:  # each becomes the other kind
        assert request.labels == (1 - data.labels[found]).tolist()
        assert abs(sum(request.labels) - len(request) / 2) <= 2
        assert request.targets is None
    few = two_kinds(18)  # all of them are training images
    request = SampleRequest.translations(few, rows_of(few.labels, 0.2, kind), kind, 100)
    assert set(rows_in(few, request.sources)) == set(rows_of(few.labels, 0.2, kind).train)


def test_pairs_are_measured_against_real_targets_alone():
    data = pairs()
    rows = rows_of(data.labels, 0.2, Paired)
    reality = ReferenceSet.of(data, rows, Paired)
    assert sorted(rows_in(data, reality.train)) == sorted(rows.train + 1)
    assert sorted(rows_in(data, reality.held_out)) == sorted(rows.held_out + 1)
    assert (reality.classes, reality.shares.tolist(), reality.split) == (("photo",), [1.0], 0.2)
    evaluate, request = translating(data, Paired)
    assert set(rows_in(data, request.sources) + rows_in(data, request.targets)).isdisjoint(rows_in(data, reality.train))
    assert not evaluate.within_classes


def test_translations_of_pairs_differ_from_targets_and_sources_as_closed_forms_say():
    data = pairs(1500)  # more sources than are made at once
    evaluate, request = translating(data, Paired, most=400, share=0.4)
    assert len(request) == 300
    sources, targets = (part.double() for part in (request.sources, request.targets))
    apart = float((sources - targets).abs().mean()) / 127.5
    assert evaluate.change == pytest.approx(apart, rel=1e-5)

    brighter = evaluate(lambda request: to_float(request.targets + 51)).metrics  # 51 of 255 are 0.4 of -1 to 1
    assert brighter["l1"] == pytest.approx(0.4, rel=1e-5)
    assert brighter["psnr"] == pytest.approx(10 * math.log10(4 / 0.4**2), rel=1e-5)
    assert brighter["change"] == pytest.approx(float((targets + 51 - sources).abs().mean()) / 127.5, rel=1e-5)

    right = evaluate(lambda request: to_float(request.targets)).metrics
    assert (right["l1"], right["psnr"], right["ssim"]) == (0, 99, pytest.approx(1))
    assert right["change"] == pytest.approx(apart, rel=1e-5)
    idle = evaluate(lambda request: to_float(request.sources)).metrics
    assert (idle["change"], idle["l1"]) == (0, pytest.approx(apart, rel=1e-5))


def test_each_direction_is_measured_by_itself_so_that_returning_the_source_is_no_translation():
    data = two_kinds()
    evaluate, request = translating(data, Unpaired)
    assert evaluate.about["within_classes"]
    found = evaluate(lambda request: -to_float(request.sources)).metrics
    assert evaluate.change is None
    assert found["change"] == pytest.approx(2 * float(to_float(request.sources).abs().mean()), rel=1e-5)
    assert found.keys().isdisjoint({"l1", "psnr", "ssim"})
    idle = evaluate(lambda request: to_float(request.sources)).metrics["fd"]
    assert idle > 20 * found["fd"]
    pooled = Evaluator(evaluate.reality, evaluate.extractors, request)
    assert pooled(lambda request: to_float(request.sources)).metrics["fd"] < idle / 20


def test_a_single_held_out_pair_is_measured_twice_because_one_image_has_no_deviation():
    data = pairs(20)
    request = SampleRequest.translations(data, Split(np.arange(0, 18, 2), np.array([18])), Paired, 100)
    reality = ReferenceSet.of(data, rows_of(data.labels, 0.0, Paired), Paired)
    evaluate = with_rand(reality, request)
    assert rows_in(data, evaluate.request.sources) == [18, 18]
    assert evaluate(lambda request: to_float(request.targets)).metrics["l1"] == 0
