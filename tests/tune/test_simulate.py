"""Searches replayed on tables whose results are known in closed form."""

from __future__ import annotations

import csv
import gzip
import io
import json
import math
import random
from pathlib import Path

import pytest
from gantool.errors import DataError, RecipeError
from gantool.training import engine
from gantool.tune import simulate
from gantool.tune.simulate import Table, about, replays, summary

from searches import BETA, RATE, tiny

EPOCHS = (5, 10, 15, 20)


def written(path, count=40, seeds=2, noise=0.0, curve=None, keys=(RATE, BETA), metric="fd", failed=()):
    """Write a table in which the metric is the distance of the rate from 1e-3, in orders of magnitude."""
    drawn = random.Random(0)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["configuration", "seed", *keys, "epoch", "seconds", metric])
    for number in range(count):
        rate, beta = (2e-4, 0.5) if number == 0 else (10 ** drawn.uniform(-5, -1), drawn.uniform(0, 0.9))
        for seed in range(1, seeds + 1):
            if (number, seed) in failed:
                writer.writerow([number, seed, rate, beta, 0, "", ""])
                continue
            luck = math.exp(drawn.gauss(0, noise))
            for epoch in EPOCHS:
                off = 1 + abs(math.log10(rate) + 3)
                value = luck * (curve or (lambda off, epoch: off * (1 + 20 / epoch)))(off, epoch)
                writer.writerow([number, seed, rate, beta, epoch, epoch * 0.1, value])
    path.write_bytes(gzip.compress(text.getvalue().encode()))
    return path


def recipe(**changes):
    return tiny(**{"tune__epochs": 20, "tune__trials": 12, "tune__pruner": "none", "tune__sampler": "random"} | changes)


def replayed(path, count=10, rival_trials=None, **changes):
    chosen = recipe(**changes)
    table = Table.read(path, chosen)
    return table, list(replays(chosen, table, count, rival_trials))


def test_a_table_is_read_as_it_was_written(tmp_path):
    table = Table.read(written(tmp_path / "t.gz"), recipe())
    assert (len(table.points), table.epochs, table.curves.shape) == (40, EPOCHS, (40, 2, 4))
    assert table.points[0] == {RATE: pytest.approx(2e-4), BETA: 0.5}
    assert table.truth()[0] == pytest.approx((1 + abs(math.log10(2e-4) + 3)) * 2)
    assert table.seconds[3, 1].tolist() == pytest.approx([0.5, 1.0, 1.5, 2.0])


def test_a_search_of_everything_without_noise_picks_the_best_and_saves_nothing(tmp_path):
    table, found = replayed(written(tmp_path / "t.gz"), rival_trials=40, tune__trials=40)
    assert {one.rank for one in found} == {0.0}
    assert {one.saved for one in found} == {0.0}
    assert {one.early for one in found} == {False}
    assert {one.truths[-1] for one in found} == {table.truth().min()}
    result = summary(found)
    for key in ("better_than_random_at_equal_seconds", "better_than_random_with_more_trials"):
        assert result[key]["share"] == 0.5, "random search finds it as well"
    path = written(tmp_path / "noisy.gz", noise=0.1)
    first, same, other = (replayed(path, tune__pruner="hyperband", tune__seed=seed)[1] for seed in (0, 0, 1))
    assert first == same != other


def test_a_pruner_saves_epochs_and_loses_the_best_if_late_winners_start_badly(tmp_path):
    _, honest = replayed(written(tmp_path / "a.gz"), count=20, tune__pruner="successive_halving")
    assert 0.2 < summary(honest)["epochs_saved"] < 0.8
    assert summary(honest)["best_stopped_early"]["share"] < 0.3

    def crossing(off, epoch):  # the better in the end, the worse at first
        return off if epoch == 20 else 100 / off

    _, fooled = replayed(written(tmp_path / "b.gz", curve=crossing), count=20, tune__pruner="successive_halving")
    assert summary(fooled)["best_stopped_early"]["share"] > 0.5


def test_a_sampler_that_learns_beats_random_search(tmp_path):
    _, found = replayed(written(tmp_path / "t.gz", count=150), count=40, tune__sampler="tpe", tune__trials=25)
    assert summary(found)["better_than_random_at_equal_seconds"]["share"] > 0.5
    assert summary(found)["rank_of_the_pick"][0] < 0.05


def test_noise_and_agreement_are_those_of_the_table(tmp_path):
    chosen = recipe()
    noisy = about(Table.read(written(tmp_path / "a.gz", count=200, seeds=3, noise=0.2), chosen))
    assert noisy["noise"]["all"] == pytest.approx(0.2, rel=0.25)
    exact = about(Table.read(written(tmp_path / "b.gz"), chosen))
    assert exact["noise"]["all"] == pytest.approx(0.0, abs=1e-9)
    assert set(exact["statistics"]) == set(simulate.STATISTICS)
    assert all(value == pytest.approx(1.0) for value in (*exact["statistics"].values(), *exact["lengths"].values()))
    alone = about(Table.read(written(tmp_path / "c.gz", seeds=1), chosen))
    assert (alone["seeds"], alone["statistics"]) == (1, {})


def test_a_training_that_failed_is_never_picked(tmp_path):
    path = written(tmp_path / "t.gz", failed={(number, 1) for number in range(1, 10)})
    _, found = replayed(path, tune__trials=31)
    assert all(math.isfinite(one.truths[-1]) for one in found)


def test_a_table_of_choices_of_numbers_is_read_and_an_unknown_one_is_refused():
    eggs = Path(__file__).parents[1] / "files" / "cgan_egg-eggs.csv.gz"
    read = Table.read(eggs, engine.open_recipe("cgan_egg", {"tune.epochs": 100}))
    assert {point["loss.r1"] for point in read.points} == {0.0, 10.0}
    other = {"loss.r1": 5.0, "tune.space": {"loss.r1": [5.0, 10.0]}, "tune.epochs": 100}
    with pytest.raises(DataError) as caught:
        Table.read(eggs, engine.open_recipe("cgan_egg", other))
    assert str(caught.value) == (
        "loss.r1: the table has 0, which is not among [5.0, 10.0]; search the space of the table"
    )


def test_a_table_that_cannot_be_used_is_refused_in_one_line(tmp_path):
    with pytest.raises(DataError) as caught:
        Table.read(written(tmp_path / "t.gz", keys=("train.batch_size", BETA)), recipe())
    assert str(caught.value) == (
        f"{tmp_path / 't.gz'}: has no column {RATE}, which the recipe searches or is measured by"
    )
    (tmp_path / "text").write_text("no table", encoding="utf-8")
    with pytest.raises(DataError, match=r"text: is no table of trainings \(.*\); make one with: nox -s gan-table"):
        Table.read(tmp_path / "text", recipe())
    with pytest.raises(RecipeError) as refused:
        replayed(written(tmp_path / "t.gz"), tune__epochs=12)
    assert str(refused.value) == (
        "tune.epochs: 12: its trials are measured after 3 epochs, but the table is not; choose one whose quarters are "
        "among 5, 10, 15, 20"
    )


def test_the_command_prints_a_table_or_one_object(tmp_path, command):
    path = written(tmp_path / "t.gz")
    space = "tune.space={train.optimizer.lr: {low: 1e-5, high: 1e-1, log: true}}"
    settings = ["--set", "tune.epochs=20", "--set", space]
    words = ("study", "simulate", "gan14", "--table", path, "--repeats", "10", *settings)
    code, out, err = command(*words, "--rival-trials", "30")
    assert code == 0, err
    for part in ("40 configurations, 2 seeds each; 10 replays", "share of the time", "epochs saved: ", "log deviation"):
        assert part in out
    code, out, err = command(*words, "--json")
    assert code == 0, err
    found = json.loads(out)
    assert (found["replays"], found["table"]["configurations"]) == (10, 40)
