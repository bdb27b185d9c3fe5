"""What a person sees while a training runs."""

from __future__ import annotations

import itertools
from pathlib import Path
from types import SimpleNamespace

import pytest
from gantool import progress, terminal
from gantool.training.report import Report
from gantool.training.rule import Diagnosis

from screens import Terminal

GOLDEN = Path(__file__).parent / "golden"


def report(epoch, *, share=1.0, **changes):
    fields = {
        "epoch": epoch,
        "finished": share == 1,
        "share": share,
        "images": 1000 * epoch,
        "seconds": 75.0 * epoch,
        "images_per_second": 12_345.6,
        "losses": {"discriminator/adversarial": 1.38629, "generator/adversarial": 0.69315},
        "scores": {
            "scores/real": 0.65,
            "scores/fake": 0.35,
            "scores/real_from_half": 0.15,
            "scores/fake_from_half": -0.15,
        },
        "metrics": {},
        "best": 9.4,
    }
    return Report(**fields | changes)


STORY = [
    report(1, metrics={"fd": 1269.0, "fd_deviation": 12.0}),
    *(report(epoch) for epoch in range(2, 150)),
    report(150, metrics={"fd": 9.4123, "fd_deviation": 0.61}),
    report(151, share=0.5),
]


@pytest.fixture
def clock(monkeypatch):
    """Each report comes half a second after the one before."""
    ticks = itertools.count()
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: next(ticks) / 2))


def shown(monkeypatch, width, reports, epochs=300, **close):
    screen = Terminal(width)
    monkeypatch.setattr(terminal, "err", screen.console)
    with progress.TrainingProgress(epochs) as line:
        for each in reports:
            line.update(each)
        line.progress.refresh()
        return screen.lines()


@pytest.mark.parametrize("width", [50, 80, 120, 200])
def test_a_training_on_a_terminal_looks_as_in_the_golden_file(monkeypatch, clock, width):
    *kept, live = shown(monkeypatch, width, STORY)

    text = "\n".join([*kept, "⠋" + live[1:]]) + "\n"  # the spinner goes by the clock
    assert text == (GOLDEN / f"training-{width}.txt").read_text(encoding="utf-8")


@pytest.mark.parametrize("width", [40, 47, 50, 58, 66, 79, 80, 81, 100, 117, 120, 150, 200])
def test_bar_percentage_and_time_left_are_seen_at_every_width_and_nothing_is_cut(monkeypatch, clock, width):
    *_, live = shown(monkeypatch, width, STORY)

    assert "━" * 5 in live
    assert " 50%" in live
    assert "1m16s left" in live
    whole = (
        "epoch 151/300  fd 9.4 ± 0.6  D(x) 0.65 (+0.15)  D(G(z)) 0.35 (-0.15)  loss D 1.386  loss G 0.693  "
        "12,346 images/s"
    )
    numbers = live.partition("left")[2].strip()
    assert whole.startswith(numbers)
    assert not numbers or whole[len(numbers) :][:2] in {"", "  "}


@pytest.mark.parametrize("width", [40, 47, 50, 58, 66, 79, 80, 81, 100, 117, 120, 150, 200])
def test_the_rows_stand_under_their_heading_at_every_width(monkeypatch, clock, width):
    lines = shown(monkeypatch, width, STORY)
    heading = next(line for line in lines if line.lstrip().startswith("epoch"))
    rows = [line for line in lines if line.lstrip()[:1].isdigit()]

    assert 5 <= len(rows) <= 20
    assert {len(line) for line in rows} == {len(heading)}
    labels = ["epoch", "fd", "D(x)", "D(G(z))", "loss D", "loss G", "images/s", "time"]
    seen = [label for label in labels if label in heading]
    assert seen == labels[: len(seen)]
    if len(seen) < len(labels):
        assert f"(a wider terminal shows {', '.join(labels[len(seen) :])})" in " ".join(lines)


def test_a_metric_stands_in_the_first_row_after_its_measurement_only(monkeypatch, clock):
    lines = shown(monkeypatch, 120, STORY)
    rows = {line.split()[0]: line for line in lines if line.lstrip()[:1].isdigit()}

    assert "1269 ± 12" in rows["15/300"]
    assert "9.4 ± 0.6" in rows["150/300"]
    assert [name for name, row in rows.items() if "±" in row] == ["15/300", "150/300"]


def test_a_warning_stands_between_the_rows(monkeypatch, clock):
    news = (Diagnosis("d-overpowers", True, 16, "d-overpowers: D is right about all"),)
    lines = shown(monkeypatch, 80, [report(15), report(16, news=news), report(30)])

    assert lines[2] == "warning: epoch 16: d-overpowers: D is right about all"


def test_a_classifier_has_an_accuracy_and_no_answers_of_a_discriminator(monkeypatch, clock):
    own = {
        "scores": {"scores/accuracy": 0.9},
        "losses": {"classifier/cross_entropy": 0.3},
        "metrics": {"accuracy": 0.97},
    }
    heading, row = shown(monkeypatch, 80, [report(1, **own)], epochs=20)[:2]

    assert heading.split() == ["epoch", "accuracy", "loss", "C", "images/s", "time"]
    assert row.split() == ["1/20", "0.9700", "0.300", "12,346", "1m15s"]
