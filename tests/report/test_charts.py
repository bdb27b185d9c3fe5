"""The page of a search: charts that show what happened, whatever the trials were, in one file that needs no other."""

from __future__ import annotations

import math
import random
from html.parser import HTMLParser

import optuna
import pytest
from gantool.errors import GantoolError
from gantool.report.charts import charts
from gantool.report.findings import Findings
from gantool.report.page import page, write_page
from gantool.tune.race import Confirmed
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState, create_trial

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
WEIGHTS = {LR: 0.7, DIM: 0.2, BETA: 0.1}
HOSTILE = "</script><script>alert(1)</script>"


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


def findings(trials, confirmed=(), winner=None, name="eggs-001"):
    study = optuna.create_study()
    study.add_trials(trials)
    kept = study.get_trials()
    values = [{key: 1 - value if key == BETA else value for key, value in one.params.items()} for one in kept]
    finished = [one for one in kept if one.state == DONE and math.isfinite(one.value)]
    lowest = min(finished, key=lambda one: one.value, default=None)
    number = lowest.number if lowest and winner is None else winner
    return Findings("fd", kept, values, frozenset({LR}), frozenset({BETA}), list(confirmed), number, name=name)


def usual():
    """Forty trials with every fate, the winner of which is not the lowest with one seed."""
    states = [DONE, DONE, STOPPED, DONE, FAILED, STOPPED, DONE, RUNNING]
    told = [{"own": True}, {"copies": True}, *({"why": f"{HOSTILE}: & more"} for _ in range(38))]
    trials = [trial(index, states[index % 8], **told[index]) for index in range(40)]
    again = [Confirmed(6, (90.0,)), Confirmed(3, (150.0, 160.0, math.nan)), Confirmed(0, (200.0, 210.0))]
    return findings(trials, again, winner=6)


def drawn(found, name, weights=None):
    return next(chart for chart in charts(found, weights or {}) if chart.name == name)


def points(figure):
    """Return the places of a figure's points by the name of their group."""
    return {trace.name: list(zip(trace.x, trace.y, strict=True)) for trace in figure.data if trace.mode == "markers"}


# The charts


def test_the_history_has_every_ended_trial_once_and_only_results_as_results():
    found = usual()
    chart = drawn(found, "history")
    assert chart.title == "fd of each trial: the winner is trial 6"
    (figure,) = chart.figures
    shown = points(figure)
    states = [one.state for one in found.trials]
    numbers = {state: [one.number for one in found.trials if one.state == state] for state in states}
    assert [number for number, _ in shown["finished"]] == [number for number in numbers[DONE] if number != 1]
    assert shown["copies of training images"] == [(1, found.trials[1].value)]
    assert shown["stopped early, at its best"] == [(number, 900.0 + number) for number in numbers[STOPPED]]
    assert [number for number, _ in shown["failed"]] == numbers[FAILED]
    assert shown["your recipe"] == [(0, found.trials[0].value)]
    assert shown["winner"] == [(6, found.trials[6].value)]
    assert shown["new seeds"] == [(6, 90), (3, 150), (3, 160), (0, 200), (0, 210)]
    (line,) = [trace for trace in figure.data if trace.name == "best so far"]
    assert line.y[-1] == found.ranked[0].value < found.best.value
    assert figure.layout.yaxis.type == "log", "40 to 900 and more are orders of magnitude"


def test_failed_trials_stand_at_the_upper_edge_with_their_reason_and_not_at_a_number():
    (figure,) = drawn(findings([trial(0), trial(1, FAILED, why="diverged: <b>")]), "history").figures
    (failed,) = [trace for trace in figure.data if trace.name == "failed"]
    assert (failed.yaxis, tuple(failed.y), tuple(figure.layout.yaxis2.range)) == ("y2", (1,), (0, 1))
    assert failed.hovertext[0].endswith("<br>diverged: &lt;b&gt;")
    assert figure.layout.yaxis.type == "linear"


def test_copies_are_results_where_the_recipes_own_images_are_copies_too_and_stay_marked():
    shown = points(drawn(findings([trial(0, own=True, copies=True), trial(1, copies=True)]), "history").figures[0])
    assert [number for number, _ in shown["finished"]] == [0, 1]
    assert [number for number, _ in shown["copies of training images"]] == [0, 1]


def test_bars_are_as_long_as_the_shares_the_largest_above():
    chart = drawn(usual(), "importances", WEIGHTS)
    assert chart.title == "lr mattered most for a low fd"
    (bars,) = chart.figures[0].data
    assert list(bars.x) == pytest.approx([10, 20, 70])
    assert list(bars.y) == ["betas.1", "latent_dim", "lr"]


def test_without_importances_their_chart_is_left_out():
    assert [chart.name for chart in charts(usual(), {})] == ["history", "parallel", "slices"]
    assert [chart.name for chart in charts(usual(), WEIGHTS)] == ["history", "importances", "parallel", "slices"]


def test_parallel_lines_are_the_results_through_the_parameters_that_all_of_them_have():
    found = usual()
    chart = drawn(found, "parallel")
    (figure,) = chart.figures
    results = sorted(found.ranked, key=lambda one: one.number)
    if figure.data[0].type == "parcoords":  # of Optuna 4
        labels = [axis.label for axis in figure.data[0].dimensions]
        assert len(figure.data[0].dimensions[0]["values"]) == len(results)
    else:
        labels = list(figure.layout.xaxis.ticktext)
        lines = [trace for trace in figure.data if trace.mode == "lines"]
        low, high = found.ranked[0].value, found.ranked[-1].value
        assert [line.y[0] for line in lines] == pytest.approx([(one.value - low) / (high - low) for one in results])
        assert results[[line.line.width for line in lines].index(4)].number == 6
        assert chart.title.endswith("; thick: trial 6, the winner")
    assert labels == ["fd", "1 - betas.1", "latent_dim", "loss.name", "lr"]
    assert "without copies of training images" in chart.title


def test_parallel_lines_have_a_logarithmic_metric_where_results_are_more_than_ten_times_apart():
    (figure,) = drawn(findings([trial(index, value=10.0**index) for index in range(3)]), "parallel").figures
    if figure.data[0].type == "parcoords":
        assert list(figure.data[0].dimensions[0]["values"]) == pytest.approx([0, 1, 2])
    else:
        assert [trace.y[0] for trace in figure.data if trace.mode == "lines"] == pytest.approx([0, 0.5, 1])
        assert figure.layout.xaxis.ticktext[0] == "log10 of fd"


@pytest.mark.parametrize("keys", [(LR,), (LR, BETA, DIM), tuple(SPANS)])
def test_slices_have_a_figure_a_parameter_as_wide_as_its_range(keys):
    states = [DONE] * 8 + [STOPPED, FAILED, RUNNING]
    found = findings([trial(index, state, keys=keys) for index, state in enumerate(states)])
    chart = drawn(found, "slices")
    named = {figure.layout.xaxis.title.text: figure for figure in chart.figures}
    assert list(named) == ["lr", "betas.1", "latent_dim", "loss.name", "r1"][: len(keys)]
    axis = named["lr"].layout.xaxis
    assert axis.type == "log"
    assert tuple(axis.range) == pytest.approx((-5.15, -1.85))
    assert dict(zip(axis.ticktext, axis.tickvals, strict=True))["3e-4"] == 3e-4
    shown = points(named["lr"])
    assert sorted(shown["finished"]) == sorted(
        (found.values[index][LR], found.trials[index].value) for index in range(8)
    )
    assert shown["stopped early, at its best"] == [(found.values[8][LR], 908.0)]
    assert shown["winner"] == [(found.values[found.winner][LR], found.best.value)]
    assert [place for place, _ in shown["failed"]] == [found.values[9][LR]]


def test_a_mirrored_axis_has_the_recipes_own_values_which_rise_to_the_right():
    found = findings([trial(index) for index in range(9)])
    figure = drawn(found, "slices").figures[1]
    axis = figure.layout.xaxis
    assert axis.range[0] > axis.range[1]
    assert {"0.9": 0.1, "0.97": 0.03, "0.999": 0.001}.items() <= dict(
        zip(axis.ticktext, axis.tickvals, strict=True)
    ).items()
    assert sorted(x for x, _ in points(figure)["finished"]) == sorted(one.params[BETA] for one in found.trials)


def test_choices_stand_in_their_order_and_as_a_recipe_writes_them():
    states = [DONE] * 20 + [STOPPED] * 9
    found = findings([trial(index, state) for index, state in enumerate(states)])
    figure = drawn(found, "slices").figures[3]
    assert list(figure.layout.xaxis.ticktext) == ["hinge", "&lt;b&gt;$x^2$", "null", "true"]
    assert list(figure.layout.xaxis.tickvals) == list(figure.layout.xaxis.categoryarray)
    for shown in points(figure).values():
        assert {place for place, _ in shown} <= set(figure.layout.xaxis.categoryarray)


# The page


class Page(HTMLParser):
    """What is in a page."""

    def __init__(self, text):
        super().__init__()
        self.titles, self.items, self.rows, self.tags, self.open, self.links = [], [], [], [], "", []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.open = tag
        self.links += [value for name, value in attrs if name in ("src", "href")]
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_data(self, data):
        if self.open == "li":
            self.items.append(data.strip())
        if self.open in ("title", "h1", "h2"):
            self.titles.append(data.strip())
        if self.open in ("td", "th"):
            self.rows[-1][-1] += data.strip()


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    path = tmp_path_factory.mktemp("report") / "new" / "index.html"
    write_page(usual(), WEIGHTS, ["lr mattered <most> & best"], path)
    return path


def test_one_file_holds_sentences_charts_and_trials_and_fetches_nothing(written):
    assert [path.name for path in written.parent.iterdir()] == ["index.html"]
    text = written.read_text(encoding="utf-8")
    shown = Page(text)
    assert shown.links == []
    assert not {"link", "img", "iframe", "object"} & set(shown.tags)
    assert "@import" not in text.partition("</style>")[0]
    assert "prefers-color-scheme: dark" in text
    assert 'name="viewport"' in text
    assert [item for item in shown.items if item] == ["lr mattered <most> & best"]
    assert [title for title in shown.titles if title] == [
        "eggs-001: what a search of 40 trials found",
        "eggs-001: what a search of 40 trials found",
        *(chart.title for chart in charts(usual(), WEIGHTS)),
        "Trials: the winner, then the lowest fd with one seed",
    ]
    assert text.count("plotly.js v") == 1, "all figures share one copy"
    assert text.count('class="plotly-graph-div"') == 3 + len(SPANS)


def test_the_same_findings_make_the_same_page(written):
    assert page(usual(), WEIGHTS, ["lr mattered <most> & best"]) == written.read_text(encoding="utf-8")


def test_the_table_has_every_trial_the_best_first(written):
    found = usual()
    head, *rows = Page(written.read_text(encoding="utf-8")).rows
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
    assert next(row for row in rows if row[0] == "4")[-2:] == ["failed", f"{HOSTILE}: & more"]


def test_hostile_names_choices_and_reasons_are_text_and_no_html():
    spans = {f"model.{HOSTILE}": CategoricalDistribution([HOSTILE, "鸡蛋 🥚", "a" * 300, "$\\frac{", "\n"])}
    (key,) = spans
    trials = [
        create_trial(value=float(index), params={key: choice}, distributions=spans, user_attrs={"why": HOSTILE})
        for index, choice in enumerate(spans[key].choices)
    ]
    text = page(findings(trials, name=HOSTILE), {key: 1.0}, [HOSTILE])
    shown = Page(text)
    ours = Page(page(findings([trial(0, keys=(LOSS,))]), {LOSS: 1.0}, []))
    assert shown.tags.count("script") == ours.tags.count("script")
    assert HOSTILE not in text
    assert shown.items[0] == HOSTILE
    assert shown.titles[0] == f"{HOSTILE}: what a search of 5 trials found"
    assert shown.rows[1][-1] == HOSTILE


def test_a_folder_that_cannot_be_made_is_an_error_with_its_name(tmp_path):
    (tmp_path / "file").write_text("here")
    with pytest.raises(GantoolError, match="file"):
        write_page(usual(), {}, [], tmp_path / "file" / "report" / "index.html")


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
    "never together": [trial(index, keys=(LR,) if index % 2 else (DIM,)) for index in range(6)],
}


@pytest.mark.parametrize("name", STRANGE)
def test_strange_trials_are_drawn_too(name):
    found = findings(STRANGE[name])
    named = [chart.name for chart in charts(found, {})]
    expected = ["history"]
    if found.ranked and name != "no parameters":
        expected += ["slices"] if name == "never together" else ["parallel", "slices"]
    assert named == expected
    assert len(Page(page(found, {}, [])).rows) == 1 + len(found.trials)
