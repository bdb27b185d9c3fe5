"""Plots of a search: real files with what they promise, whatever the trials were, and a page on its own."""

from __future__ import annotations

import base64
import io
import math
import random
import re
import subprocess
import sys
from html.parser import HTMLParser

import matplotlib.style
import numpy as np
import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState, create_trial
from PIL import Image

from gantool.errors import GantoolError
from gantool.report import charts, plots
from gantool.report.findings import Findings
from gantool.report.scales import TICKS, Scale, metric_scale, scale_of
from gantool.tune.race import Confirmed

optuna.logging.set_verbosity(optuna.logging.ERROR)
LR, BETA, DIM, LOSS, PENALTY = (
    "train.optimizer.lr",
    "train.optimizer.betas.1",
    "model.latent_dim",
    "loss.name",
    "loss.r1",
)
SPANS = {
    LR: FloatDistribution(1e-5, 1e-2, log=True),
    BETA: FloatDistribution(1e-4, 1e-1, log=True),
    DIM: IntDistribution(16, 256),
    LOSS: CategoricalDistribution(["hinge", "<b>$x^2$", None, True]),
    PENALTY: FloatDistribution(0.0, 10.0),
}
DONE, STOPPED, FAILED, RUNNING = TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL, TrialState.RUNNING
ALL = ["history.png", "importances.png", "parallel.png", "slices.png", "index.html"]


def trial(index, state=DONE, value=None, keys=tuple(SPANS), **told):
    numbers = random.Random(index)
    point = {
        LR: 10 ** numbers.uniform(-5, -2),
        BETA: 10 ** numbers.uniform(-4, -1),
        DIM: numbers.randint(16, 256),
        LOSS: numbers.choice(SPANS[LOSS].choices),
        PENALTY: numbers.uniform(0, 10),
    }
    params = {key: value for key, value in point.items() if key in keys and (key != PENALTY or point[LOSS] == "hinge")}
    value = 40 + abs(math.log10(point[LR]) + 3) * 100 if value is None else value
    return create_trial(
        state=state,
        value=value if state == DONE else None,
        params=params,
        distributions={key: SPANS[key] for key in params},
        user_attrs={"seconds": 9.0, **told},
        intermediate_values={1: 900.0 + index, 3: math.nan} if state == STOPPED else {},
    )


def findings(trials, confirmed=(), winner=None):
    study = optuna.create_study()
    study.add_trials(trials)
    kept = study.get_trials()
    values = [{key: 1 - value if key == BETA else value for key, value in one.params.items()} for one in kept]
    finished = [one for one in kept if one.state == DONE and math.isfinite(one.value)]
    lowest = min(finished, key=lambda one: one.value, default=None)
    number = lowest.number if lowest and winner is None else winner
    return Findings("fd", kept, values, frozenset({LR}), frozenset({BETA}), list(confirmed), number)


def usual():
    """Forty trials with every fate, the winner of which is not the lowest with one seed."""
    states = [DONE, DONE, STOPPED, DONE, FAILED, STOPPED, DONE, RUNNING]
    told = [{"own": True}, {"copies": True}, *({"why": "<script>: & more"} for _ in range(38))]
    trials = [trial(index, states[index % 8], **told[index]) for index in range(40)]
    again = [Confirmed(6, (90.0,)), Confirmed(3, (150.0, 160.0, math.nan)), Confirmed(0, (200.0, 210.0))]
    return findings(trials, again, winner=6)


WEIGHTS = {LR: 0.7, DIM: 0.2, BETA: 0.1}


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report") / "new"
    return plots.draw(usual(), WEIGHTS, ["lr mattered <most> & best"], folder)


def picture(path):
    image = Image.open(path)
    image.load()
    return np.asarray(image.convert("RGB")).astype(int)


# The files


def test_all_files_are_written_and_nothing_else(drawn):
    assert [path.name for path in drawn] == ALL
    assert sorted(path.name for path in drawn[0].parent.iterdir()) == sorted(ALL)


def test_pictures_open_and_show_something_in_the_promised_colours(drawn):
    for path in drawn[:-1]:
        pixels = picture(path)
        assert pixels.shape[0] > 300
        assert pixels.shape[1] > 800
        assert 0.02 < (pixels.min(axis=2) < 250).mean() < 0.5, path
        assert (pixels[[0, -1]] == 255).all(), "nothing is cut off at the upper and lower edge"
    for name in ("history.png", "parallel.png", "slices.png"):
        assert (np.abs(picture(drawn[0].with_name(name)) - (213, 94, 0)).sum(axis=2) < 12).sum() > 100  # the best one


def test_without_importances_their_plot_is_neither_listed_nor_left_from_before(tmp_path):
    plots.draw(usual(), WEIGHTS, [], tmp_path)
    written = plots.draw(usual(), {}, [], tmp_path)
    assert [path.name for path in written] == [name for name in ALL if name != "importances.png"]
    assert not (tmp_path / "importances.png").exists()


def test_the_same_findings_make_the_same_files(drawn, tmp_path):
    for path in plots.draw(usual(), WEIGHTS, ["lr mattered <most> & best"], tmp_path):
        assert path.read_bytes() == drawn[0].with_name(path.name).read_bytes()


def test_a_folder_that_cannot_be_made_is_an_error_with_its_name(tmp_path):
    (tmp_path / "file").write_text("here")
    with pytest.raises(GantoolError, match="file"):
        plots.draw(usual(), {}, [], tmp_path / "file" / "report")


def test_a_users_own_style_is_left_alone_and_pyplot_is_not_loaded(tmp_path):
    code = (
        # matplotlib 3.9 uses what a newer pyparsing deprecates
        "import warnings; warnings.filterwarnings('ignore', category=DeprecationWarning, module=r'matplotlib\\._')\n"
        "import sys; from gantool.report import plots, findings; from pathlib import Path\n"
        "assert 'matplotlib' not in sys.modules\n"
        "found = findings.Findings('fd', [], [], frozenset(), frozenset(), [])\n"
        "import matplotlib; matplotlib.rcParams['font.size'] = 31\n"
        f"plots.draw(found, {{}}, [], Path({str(tmp_path)!r}))\n"
        "assert matplotlib.rcParams['font.size'] == 31; assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, timeout=120)


# What is in them


@pytest.fixture
def styled():
    with matplotlib.style.context(["default", plots._STYLE]):
        yield


@pytest.mark.usefixtures("styled")
def test_the_history_has_every_ended_trial_once():
    found = usual()
    axes = charts.history(found).axes[0]
    counts = {points.get_label(): len(points.get_offsets()) for points in axes.collections}
    states = [one.state for one in found.trials]
    assert counts["finished"] == states.count(DONE) - 1
    assert counts["copies of training images"] == 1
    assert counts["stopped early, at its best"] == states.count(STOPPED)
    assert counts["failed"] == states.count(FAILED)
    assert counts["other seeds"] == 5
    line = axes.lines[0].get_ydata()
    assert (np.diff(line) <= 0).all()
    assert line[-1] == pytest.approx(math.log10(found.ranked[0].value))  # 40 to 900 and more: orders of magnitude
    (star,) = [points for points in axes.collections if points.get_label() == "winner"]
    assert found.best.value > found.ranked[0].value
    assert star.get_offsets().tolist() == [pytest.approx([6, math.log10(found.best.value)])]


@pytest.mark.usefixtures("styled")
def test_bars_are_as_long_as_the_shares_the_largest_above():
    axes = charts.importances(usual(), WEIGHTS).axes[0]
    assert [bar.get_width() for bar in axes.patches] == pytest.approx([10, 20, 70])
    assert [label.get_text() for label in axes.get_yticklabels()] == ["betas.1", "latent_dim", "lr"]


@pytest.mark.usefixtures("styled")
def test_parallel_lines_go_through_each_value_and_have_a_gap_where_one_is_missing():
    found = usual()
    axes = charts.parallel(found).axes[0]
    assert [label.get_text() for label in axes.get_xticklabels()] == [
        "lr",
        "betas.1",
        "latent_dim",
        "loss.name",
        "r1",
        "fd",
    ]
    shown = [
        (one, values) for one, values in zip(found.trials, found.values, strict=True) if one.state in (DONE, STOPPED)
    ]
    assert len(axes.lines) == len(shown)
    for line, (one, values) in zip(axes.lines, shown, strict=True):
        heights = line.get_ydata()
        assert heights[0] == pytest.approx((math.log10(values[LR]) + 5) / 3)
        assert heights[1] == pytest.approx((-math.log10(1 - values[BETA]) - 1) / 3)
        assert heights[2] == pytest.approx((values[DIM] - 16) / 240)
        assert math.isnan(heights[4]) == (PENALTY not in values)
        assert math.isnan(heights[5]) == (one.state == STOPPED)
    best = max(axes.lines, key=lambda line: line.get_linewidth())
    assert shown[list(axes.lines).index(best)][0].number == found.best.number
    texts = [text.get_text() for text in axes.texts]
    assert {"hinge", "<b>$x^2$", "null", "true", "1e-3", "0.999"} <= set(texts)


@pytest.mark.parametrize("keys", [(LR,), (LR, DIM), (LR, BETA, DIM), (LR, BETA, DIM, LOSS), tuple(SPANS)])
@pytest.mark.usefixtures("styled")
def test_slices_have_one_plot_a_parameter(keys):
    figure = charts.slices(findings([trial(index, keys=keys) for index in range(9)]))
    named = [axes.get_xlabel() for axes in figure.axes if axes.get_visible() and axes.get_xlabel()]
    assert named == [
        {LR: "lr", BETA: "betas.1", DIM: "latent_dim", LOSS: "loss.name", PENALTY: "r1"}[key] for key in keys
    ]
    first = figure.axes[0].collections[0]
    assert len(first.get_offsets()) == 9


# Scales


@pytest.mark.parametrize(
    ("scale", "labels"),
    [
        (scale_of(usual(), LR), ["1e-5", "1e-4", "1e-3", "0.01"]),
        (scale_of(usual(), BETA), ["0.9", "0.99", "0.999", "0.9999"]),
        (scale_of(usual(), DIM), ["50", "100", "150", "200", "250"]),
        (scale_of(usual(), LOSS), ["hinge", "<b>$x^2$", "null", "true"]),
        (metric_scale([3.0, 12.0]), ["4", "6", "8", "10", "12"]),
        (metric_scale([3.0, 120.0]), ["5", "10", "20", "50", "100"]),
        (metric_scale([1e-9, 1e9]), ["1e-8", "1e-4", "1", "1e4", "1e8"]),
        (metric_scale([math.nan, math.inf]), []),
        (Scale("logarithmic", math.log10(100), math.log10(160)), ["100", "120", "140", "160"]),
    ],
)
def test_ticks_are_few_and_round_and_in_the_range(scale, labels):
    ticks = scale.ticks()
    assert sorted(ticks.values()) == sorted(labels)
    assert len(ticks) <= TICKS
    assert list(ticks) == sorted(ticks)
    assert all(scale.low - 1e-6 <= place <= scale.high + 1e-6 for place in ticks)


# The page


class Page(HTMLParser):
    """What is in a page."""

    def __init__(self, text):
        super().__init__()
        self.images, self.items, self.rows, self.tags, self.open = [], [], [], [], ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.open = tag
        if tag == "img":
            self.images.append(dict(attrs))
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_data(self, data):
        if self.open == "li":
            self.items.append(data.strip())
        if self.open in ("td", "th"):
            self.rows[-1][-1] += data.strip()


def test_the_page_holds_pictures_sentences_and_trials_and_fetches_nothing(drawn):
    text = drawn[-1].read_text(encoding="utf-8")
    page = Page(text)
    assert not re.search(r"(?i)https?:|<script|<link|@import|url\(", text)
    assert "prefers-color-scheme: dark" in text
    assert 'name="viewport"' in text
    assert [item for item in page.items if item] == ["lr mattered <most> & best"]
    for image, path in zip(page.images, drawn[:-1], strict=True):
        assert image["alt"]
        data = base64.b64decode(image["src"].removeprefix("data:image/png;base64,"))
        assert data == path.read_bytes()
        assert Image.open(io.BytesIO(data)).format == "PNG"


def test_the_table_has_every_trial_the_best_first(drawn):
    found = usual()
    head, *rows = Page(drawn[-1].read_text(encoding="utf-8")).rows
    parameters = ["lr", "betas.1", "latent_dim", "loss.name", "r1"]
    assert head == ["trial", "fd", "epoch", "seconds", "new seeds", *parameters, "state", "what was seen"]
    assert sorted(int(row[0]) for row in rows) == list(range(40))
    assert int(rows[0][0]) == found.best.number == 6
    sound = [one.number for one in found.ranked if one.number != 6]
    assert [int(row[0]) for row in rows[1 : 1 + len(sound)]] == sound
    assert rows[1 + len(sound)][0] == "1", "copies come after all others that finished"
    seeds = {row[0]: row[4] for row in rows if row[4]}
    assert seeds == {"0": "205.0 ± 7.1 (2 seeds)", "3": "155.0 (1 of 3 failed)", "6": "90.00 (1 seed)"}
    assert next(row for row in rows if row[0] == "0")[-1] == "the recipe's own values"
    assert next(row for row in rows if row[0] == "4")[-2:] == ["failed", "<script>: & more"]


# Whatever the trials were

STRANGE = {
    "none": [],
    "one": [trial(0)],
    "one failed": [trial(0, FAILED, why="x")],
    "all failed": [trial(index, FAILED) for index in range(5)],
    "all stopped": [trial(index, STOPPED) for index in range(5)],
    "all running": [trial(index, RUNNING) for index in range(2)],
    "equal": [trial(index, value=7.0) for index in range(5)],
    "infinite": [trial(index, value=math.inf if index % 2 else 3.0) for index in range(5)],
    "only infinite": [trial(index, value=-math.inf) for index in range(3)],
    "negative": [trial(index, value=index - 3.0) for index in range(6)],
    "far apart": [trial(index, value=10.0 ** (9 * index - 20)) for index in range(5)],
    "all collapsed": [trial(index, diagnoses=["mode-collapse"]) for index in range(5)],
    "all copies": [trial(index, copies=True) for index in range(5)],
    "choices": [trial(index, keys=(LOSS,)) for index in range(5)],
    "no parameters": [trial(index, keys=()) for index in range(5)],
}


@pytest.mark.parametrize("name", STRANGE)
def test_strange_trials_are_drawn_too(name, tmp_path, monkeypatch):
    monkeypatch.setitem(plots._STYLE, "figure.dpi", 50)  # which takes less time
    written = plots.draw(findings(STRANGE[name]), {}, [], tmp_path)
    bare = name in ("none", "no parameters")
    assert [path.name for path in written] == ["history.png", *([] if bare else ALL[2:4]), "index.html"]
    for path in written[:-1]:
        assert picture(path).std() > 1


def test_names_and_values_of_any_letters_are_drawn(tmp_path):
    spans = {"model.größe_$": CategoricalDistribution(["鸡蛋 🥚", "a" * 300, "$\\frac{", "\n"])}
    (key,) = spans
    trials = [
        create_trial(value=float(index), params={key: choice}, distributions=spans)
        for index, choice in enumerate(spans[key].choices)
    ]
    assert len(plots.draw(findings(trials), {key: 1.0}, ["<img src=x>"], tmp_path)) == len(ALL)
    assert "<img src=x>" not in (tmp_path / "index.html").read_text(encoding="utf-8")
