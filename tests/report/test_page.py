"""The page of a search is one file that needs no other, whatever the names in it are."""

from __future__ import annotations

from html.parser import HTMLParser

import pytest
from gantool.errors import GantoolError
from gantool.report.charts import charts
from gantool.report.page import page, write_page
from optuna.distributions import CategoricalDistribution
from optuna.trial import create_trial

from reported import HOSTILE, LOSS, LR, SPANS, findings, scattered, usual

WEIGHTS, SENTENCES = {LR: 0.7, "model.latent_dim": 0.3}, ["lr mattered <most> & best"]


class Page(HTMLParser):
    """The tags, links, sentences, titles and table of a page."""

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
        if self.open == "li" and data.strip():
            self.items.append(data.strip())
        if self.open in ("title", "h1", "h2") and data.strip():
            self.titles.append(data.strip())
        if self.open in ("td", "th"):
            self.rows[-1][-1] += data.strip()


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    path = tmp_path_factory.mktemp("report") / "new" / "index.html"
    write_page(usual(), WEIGHTS, SENTENCES, path)
    return path


def test_one_file_holds_sentences_charts_and_trials_and_fetches_nothing(written):
    assert [path.name for path in written.parent.iterdir()] == ["index.html"]
    text = written.read_text(encoding="utf-8")
    assert text == page(usual(), WEIGHTS, SENTENCES), "the same findings make the same page"
    shown = Page(text)
    assert shown.links == []
    assert not {"link", "img", "iframe", "object"} & set(shown.tags)
    assert "@import" not in text.partition("</style>")[0]
    assert "prefers-color-scheme: dark" in text
    assert 'name="viewport"' in text
    assert shown.items == SENTENCES
    assert shown.titles == [
        "eggs-001: what a search of 40 trials found",
        "eggs-001: what a search of 40 trials found",
        *(chart.title for chart in charts(usual(), WEIGHTS)),
        "Trials: the winner, then the lowest fd with one seed",
    ]
    assert text.count("plotly.js v") == 1, "all figures share one copy"
    assert text.count('class="plotly-graph-div"') == 3 + len(SPANS)


def test_the_table_has_every_trial_the_best_first(written):
    found = usual()
    head, *rows = Page(written.read_text(encoding="utf-8")).rows
    parameters = ["lr", "betas.1", "latent_dim", "loss.name", "r1"]
    assert head == ["trial", "fd", "epoch", "seconds", "new seeds", *parameters, "state", "what was seen"]
    assert sorted(int(row[0]) for row in rows) == list(range(40))
    sound = [one.number for one in found.ranked if one.number != 6]
    assert [int(row[0]) for row in rows[: len(sound) + 2]] == [6, *sound, 1], "copies come after all others"
    seeds = {row[0]: row[4] for row in rows if row[4]}
    assert seeds == {"0": "205.0 ± 7.1 (2 seeds)", "3": "155.0 (1 of 3 failed)", "6": "90.00 (1 seed)"}
    assert next(row for row in rows if row[0] == "0")[-1] == "your recipe"
    assert next(row for row in rows if row[0] == "4")[-2:] == ["failed", f"{HOSTILE}: & more"]


def test_hostile_names_choices_and_reasons_are_text_and_no_html():
    key, choices = f"model.{HOSTILE}", [HOSTILE, "鸡蛋 🥚", "a" * 300, "$\\frac{", "\n"]
    spans = {key: CategoricalDistribution(choices)}
    made = (
        create_trial(value=float(index), params={key: choice}, distributions=spans, user_attrs={"why": HOSTILE})
        for index, choice in enumerate(choices)
    )
    text = page(findings(made, name=HOSTILE), {key: 1.0}, [HOSTILE])
    shown = Page(text)
    harmless = Page(page(findings(scattered(1, lambda point: 1.0, (LOSS,))), {LOSS: 1.0}, []))
    assert shown.tags.count("script") == harmless.tags.count("script")
    assert HOSTILE not in text
    assert shown.items == [HOSTILE]
    assert shown.titles[0] == f"{HOSTILE}: what a search of 5 trials found"
    assert shown.rows[1][-1] == HOSTILE


def test_a_folder_that_cannot_be_made_is_an_error_with_its_name(tmp_path):
    (tmp_path / "file").write_text("here")
    with pytest.raises(GantoolError, match="file"):
        write_page(usual(), {}, [], tmp_path / "file" / "report" / "index.html")


def test_images_of_an_older_report_are_deleted_from_a_study_and_from_no_other_folder(tmp_path):
    (tmp_path / "study" / "report").mkdir(parents=True)
    (tmp_path / "study" / "study.json").write_text("{}")
    mine = tmp_path / "mine"
    mine.mkdir()
    for folder in (tmp_path / "study" / "report", mine):
        for name in ("history.png", "slices.png", "note.png"):
            (folder / name).write_bytes(b"png")
        write_page(findings([]), {}, [], folder / "index.html")
    assert {path.name for path in (tmp_path / "study" / "report").iterdir()} == {"index.html", "note.png"}
    assert len(list(mine.iterdir())) == 4
