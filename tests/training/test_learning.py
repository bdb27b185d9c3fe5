"""The honest end-to-end: generators that learn to draw real handwritten digits."""

from __future__ import annotations

import pytest
import torch
from gantool import load
from gantool.data.prepare import prepare
from gantool.recipe.load import dump
from gantool.runs import Run
from gantool.training import engine, setup


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("gan14", {"train.epochs": 12, "train.batch_size": 32}),
        ("dcgan14", {"train.epochs": 12, "train.batch_size": 64, "data.classes": ["0", "1", "2"]}),
    ],
)
def test_a_generator_comes_nearer_to_real_digits_and_the_best_of_it_is_what_is_sampled(
    name, changes, tmp_path, data_dir
):
    recipe = engine.open_recipe(
        name, {"data.source": "digits", "train.evaluate_images": 400, "train.evaluate_every": 1, **changes}
    )
    run = Run.create(dump(recipe), name=recipe.name, out=tmp_path / "run")
    reports = [report for report in engine.train(recipe, run, data_dir=data_dir, device="cpu") if report.finished]
    distances = [report.metrics["fd"] for report in reports]
    assert distances[-1] < distances[0] / 2
    assert reports[-1].best == min(distances)
    assert all(0 < report.scores[key] < 1 for report in reports for key in ("scores/real", "scores/fake"))

    # What `sample` gives is what was measured, and different seeds are different images.
    trained = load(run.path, device="cpu")
    evaluate = setup.evaluator_of(recipe, prepare(recipe.data, data_dir), data_dir)
    again = evaluate(trained.images).metrics
    assert again["fd"] == pytest.approx(min(distances), rel=1e-2)
    pictures = trained.sample(range(16)).flatten(1)
    apart = torch.cdist(pictures, pictures)[~torch.eye(16, dtype=torch.bool)]
    assert float(apart.min()) > 0.5
