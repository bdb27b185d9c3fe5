"""How a search is shown: live on a terminal, a line for each trial in a pipe, an object for each event to programs."""

from __future__ import annotations

import io
import json
import re
import time
from dataclasses import replace
from pathlib import Path

import pytest
from gantool import terminal as show
from gantool.training import engine
from gantool.tune.board import Board, sparkline
from gantool.tune.events import SearchProgress, TrialStatus
from gantool.tune.race import Confirmed
from gantool.tune.study import Study
from rich.console import Console

from screens import Terminal
from searches import BETA, RATE, Backend, bowl, made, measured, planned, quick, run, tiny

STATE = ["your", "recipe,", "finished"]  # of the first trial
SEARCH = {"tune__epochs": 2, "tune__pruner": "none"}


@pytest.fixture
def terminal(monkeypatch):
    """Make standard error a terminal of 140 columns, and return the file that it writes to."""
    console = Console(force_terminal=True, width=140, file=io.StringIO(), no_color=True, highlight=False)
    monkeypatch.setattr(show, "err", console)
    return console.file


def drawn(board):
    """Return the text of the live view."""
    console = Console(width=140, file=io.StringIO())
    console.print(board._live_view())
    return console.file.getvalue()


def test_the_live_view_has_a_table_of_ended_trials_and_a_bar_for_each_running_one(data_dir, tmp_path):
    backend = Backend(made(tmp_path / "s", tune__trials=5, tune__pruner="none"), data_dir, slots=2)
    backend.next("a"), backend.next("b")
    backend.ended("a", (1, 30.0), (2, 20.0), (4, 10.0))
    backend.measured("b", (1, 40.0), (2, 25.0))
    head, time_line, heading, row, _, running = drawn(backend.board).splitlines()
    assert head.rstrip() == "1 finished, 1 running of 5"
    assert re.match(r"\ds so far, about \ds left; lowest fd 10.00 \(trial 0, one seed\) *$", time_line)
    assert heading.split() == ["trial", "fd", "epoch", "lr", "betas.0", "state"]
    assert row.split() == ["0", "10.00", "4/4", "█▄▁", "0.0002", "0.5", *STATE]
    assert re.match(r"trial 1  ━{12} {12}  2/4  fd 25.00  █▁ *$", running)


def test_a_running_trial_is_shown_as_far_as_its_log_says(data_dir, tmp_path):
    backend = Backend(made(tmp_path / "s"), data_dir)
    folder = Path(backend.next("a").folder)
    assert backend.board.rows["0"].reached() == 0
    folder.mkdir()
    lines = [json.dumps({"epoch": epoch, "pad": "x" * 3000}) for epoch in (1, 2, 3)]
    (folder / "log.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    assert backend.board.rows["0"].reached() == 3
    assert " 3/4" in drawn(backend.board)
    with (folder / "log.jsonl").open("a") as file:
        file.write('{"epoch": 4, "half a li')
    assert backend.board.rows["0"].reached() == 0, "an incomplete line says nothing"


def test_the_time_left_is_the_epochs_to_come_on_all_slots_times_the_seconds_of_one(data_dir, tmp_path):
    settings = {"tune__trials": 8, "tune__pruner": "none", "tune__confirm": {"top": 1, "seeds": 2}}
    backend = Backend(made(tmp_path / "s", **settings), data_dir, slots=4)
    board = backend.board
    assert board._left() == "", "nothing is known yet"
    backend.next("a"), backend.next("b")
    backend.ended("a", (4, 1.0))
    board.spent = [(100.0, 4)]
    # Seven more trials, and one candidate and the recipe with two seeds each: of 4 epochs of 25 s each, on 4 slots.
    assert board.progress.todo == 4 * (6 + 4)
    assert board._left() == f", about {show.duration(11 * 100 / 4)} left"
    backend.measured("b", (2, 1.0))
    assert board._left() == f", about {show.duration(10.5 * 100 / 4)} left", "half of the running one is done"
    backend.ended("b", (4, 2.0))
    board.spent = [(100.0, 4), (200.0, 4)]
    assert board._left() == f", about {show.duration(10 * 150 / 4)} left"


def test_the_time_left_counts_trainings_to_the_full_length_and_the_longest_running_one(data_dir, tmp_path):
    settings = {"tune__trials": 2, "tune__pruner": "none", "tune__confirm": {"top": 1, "seeds": 2}}
    backend = Backend(made(tmp_path / "s", **settings, tune__finish="full", train__epochs=44), data_dir, slots=2)
    board = backend.board
    backend.next("a")
    # Another trial, two trainings of each with new seeds, and 40 more epochs of each.
    assert board.progress.todo == 4 + 4 * 4 + 2 * 40
    backend.ended("a", (4, 2.0))
    backend.next("b")
    backend.ended("b", (4, 1.0))
    for _ in range(4):
        label = backend.next("c").label
        backend.ended("c", (4, 1.0 if label.startswith("1 ") else 2.0))
    assert board.progress.todo == 2 * 40, "a verdict is reached"
    backend.next("d"), backend.next("e")
    assert board.progress.todo == 0
    board.spent = [(30.0, 30)]
    backend.measured("d", measured(34, 1.0, last=44))
    assert board._left() == f", about {show.duration(40)} left", "the other one has 40 epochs to go"
    assert re.search(r"^trial 1( seed \d+)? to the end +━+╸? +34/44  fd 1.000 ", drawn(board), re.MULTILINE)


def test_gpu_hours_are_shown_if_there_are_gpus(data_dir, tmp_path, monkeypatch):
    now = [time.monotonic()]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    backend = Backend(made(tmp_path / "s"), data_dir, gpus=0.5)
    backend.next("a")
    now[0] += 3600
    assert "; 0.50 GPU hours" in drawn(backend.board)


@pytest.mark.parametrize(
    ("code", "lowest"),
    [
        ("mode-collapse", "lowest fd 1.000 (trial 1, one seed)"),
        ("memorised", "lowest fd 9.000 (trial 0, one seed; copies of training images left out)"),
    ],
)
def test_copies_are_not_called_the_lowest_and_other_diagnoses_change_nothing(code, lowest, data_dir, tmp_path):
    backend = Backend(made(tmp_path / "s", tune__trials=3, tune__pruner="none"), data_dir)
    for key, score, codes in (("a", 9.0, ()), ("b", 1.0, (code,))):
        backend.next(key)
        result = measured(4, score, codes)
        backend.ended(key, replace(result, diagnoses=()) if result.copies else result)
    time_line, _, first, second = drawn(backend.board).splitlines()[1:5]
    assert time_line.rstrip().endswith(f"; {lowest}")
    assert first.split()[:2] == ["1", "1.000"]
    assert first.rstrip().endswith(f"finished, {code}")
    assert second.split()[:2] == ["0", "9.000"]


def test_on_a_terminal_the_table_is_live_and_gone_at_the_end(data_dir, tmp_path, terminal, capsys):
    def score(recipe, epoch):
        time.sleep(0.1)
        return bowl(recipe, epoch)

    run(tiny(tune__trials=3, tune__pruner="none"), tmp_path / "s", data_dir, quick(score))
    text = terminal.getvalue()
    assert "\x1b[" in text
    assert re.search(r"trial 1 +━+ +[1-3]/4 +fd ", text)
    assert re.search(r"1 finished, 1 running of 3.*lowest fd", text, re.DOTALL)
    assert re.search(r"so far, about \d+s left; lowest fd \d\.\d+ \(trial \d, one seed\)", text)
    assert "trial 0 finished" not in text, "no line for each trial beside a live table"
    assert re.search(r"^ +\d  \d\.\d+ +4/4 ", capsys.readouterr().out, re.MULTILINE)


def lines_of(messages):
    """Return the lines about trials, without times."""
    lines = [line for line in messages if line.startswith("trial ")]
    return [re.sub(r"\d+s so far(, about \d+s left)?", "…", line) for line in lines]


def test_in_a_pipe_each_training_is_a_line(data_dir, tmp_path, logged):
    def plan(number, seed):
        return "diverged: at once" if number == 1 else 3.0 - number

    settings = {"tune__trials": 3, "tune__confirm": {"top": 1, "seeds": 1}, "tune__finish": "full", "train__epochs": 6}
    run(tiny(**SEARCH, **settings), tmp_path / "s", data_dir, planned(plan))
    seed = Study(tmp_path / "s").seeds()[-1]
    of_three = "2 finished, 1 failed of 3"
    new_seeds = "lowest fd 1.500 (trial 2, one seed); new seeds compare trial 2 with your recipe"
    verdict = "trial 2: fd 1.500, your recipe: 3.500, 1 new seed each"
    assert lines_of(logged) == [
        "trial 0 (your recipe) finished at epoch 2: fd 3.500; 1 finished of 3; …; lowest fd 3.500 (trial 0, one seed)",
        "trial 1 failed at epoch 0: diverged: at once; 1 finished, 1 failed of 3; …; "
        "lowest fd 3.500 (trial 0, one seed)",
        f"trial 2 finished at epoch 2: fd 1.500; {of_three}; …; {new_seeds}",
        f"trial 2 seed {seed} finished at epoch 2: fd 1.500; {of_three}; 1 training with new seeds done; "
        f"…; {new_seeds}",
        f"trial 0 seed {seed} (your recipe) finished at epoch 2: fd 3.500; {of_three}; "
        f"2 trainings with new seeds done; …; {verdict}",
        *[
            f"trial {name} finished at epoch 6: fd {score}; {of_three}; 2 trainings with new seeds done; …; {verdict}"
            for name, score in (("2 to the end", "1.167"), ("0 to the end (your recipe)", "3.167"))
        ],
    ]


def test_the_lines_say_which_trials_new_seeds_compare_and_the_last_table_names_the_winner(
    data_dir, tmp_path, logged, capsys
):
    def plan(number, seed):
        return [9.0 - number, *(["mode-collapse"] if number == 3 else [])]

    chosen = tiny(**SEARCH, tune__trials=4, tune__confirm={"top": 2, "seeds": 4})
    run(chosen, tmp_path / "s", data_dir, planned(plan))
    lines = lines_of(logged)
    assert lines[2].endswith("; lowest fd 7.500 (trial 2, one seed)")
    assert lines[3].endswith("; lowest fd 6.500 (trial 3, one seed); new seeds choose among trials 3, 2")
    assert any(line.endswith("; new seeds compare trial 3 with your recipe") for line in lines)
    assert lines[-1].endswith("; trial 3: fd 6.500, your recipe: 9.500, 4 new seeds each")
    heading, *table = [re.split(r"  +", line.strip()) for line in capsys.readouterr().out.splitlines()]
    assert heading == ["trial", "fd", "new seeds", "epoch", "lr", "betas.0", "state"]
    assert [(row[0], row[1], row[2], row[-1]) for row in table if "(" in row[2]] == [
        ("3", "6.500", "6.500 (6)", "winner, finished, mode-collapse"),
        ("2", "7.500", "7.500 (2)", "finished"),
        ("0", "9.500", "9.500 (4)", "your recipe, finished"),
    ]


def events(text):
    """Return the objects that were printed; NaN and infinity are not JSON."""

    def refuse(word):
        raise AssertionError(word)

    return [json.loads(line, parse_constant=refuse) for line in text.splitlines()]


def test_for_programs_each_event_is_an_object(data_dir, tmp_path, capsys):
    def plan(number, seed):
        return "diverged: at once" if number == 1 else 3.0 - number

    chosen = tiny(**SEARCH, tune__trials=3, tune__confirm={"top": 1, "seeds": 1}, tune__finish="full", train__epochs=4)
    study = run(chosen, tmp_path / "s", data_dir, planned(plan), as_json=True)
    printed, seed = events(capsys.readouterr().out), study.seeds()[-1]

    def training(label, measurements):
        return [(kind, label) for kind in ("started", *["measured"] * measurements, "ended")]

    assert [(event["event"], event.get("trial")) for event in printed] == [
        ("begin", None),
        *training("0", 2),
        *training("1", 0),
        *training("2", 2),
        *training(f"2 seed {seed}", 2),
        *training(f"0 seed {seed}", 2),
        *training("2 to the end", 4),
        *training("0 to the end", 4),
        ("end", None),
    ]
    assert printed[1]["values"] == {RATE: 2e-4, BETA: 0.5}
    assert printed[2] == {"event": "measured", "trial": "0", "epoch": 1, "fd": 4.0, "best": 4.0}
    failed = next(event for event in printed if event["event"] == "ended" and event["trial"] == "1")
    assert (failed["state"], failed["fd"], failed["why"]) == ("fail", None, "diverged: at once")
    end = printed[-1]
    assert (end["best"], end["interrupted"], end["spent_budget"]) == (2, False, None)
    assert end["sentence"] == (
        "cannot tell yet whether trial 2 is better than your recipe: over 1 new seed, it has fd 1.500 and your recipe "
        "3.500; these are too few results for an interval, after 2 epochs; trained on with one seed: your recipe 3.250 "
        "after 4 epochs, trial 2 1.250 after 4 epochs"
    )
    assert end["verdict"] == {
        "kind": "unsure", "trial": 2, "values": [1.5], "own": [3.5], "ratio": pytest.approx(1.5 / 3.5),
        "interval": [0.0, None], "epochs": 2, "copies": False,
    }  # fmt: skip
    run(chosen, tmp_path / "s", data_dir, as_json=True)
    again = events(capsys.readouterr().out)
    assert [event["event"] for event in again] == ["begin", "end"]
    assert (again[0]["done"], again[0]["trials"]) == (3, 3)


def test_programs_learn_which_trial_was_interrupted_and_resumed(data_dir, tmp_path, capsys):
    stopped = []

    def score(recipe, epoch):
        if epoch == 2:
            stopped.append(15)
        return bowl(recipe, epoch)

    run(tiny(tune__trials=2), tmp_path / "s", data_dir, quick(score), stopped=stopped, as_json=True)
    printed = events(capsys.readouterr().out)
    assert [event["event"] for event in printed] == ["begin", "started", "measured", "measured", "interrupted", "end"]
    assert printed[-1]["interrupted"]
    assert printed[-1]["best"] is None
    run(tiny(tune__trials=2), tmp_path / "s", data_dir, as_json=True)
    begin, first, second, *_ = events(capsys.readouterr().out)
    assert (begin["done"], begin["interrupted"]) == (0, 1)
    assert (first["event"], first["trial"]) == ("started", "0")
    assert (second["event"], second["epoch"]) == ("measured", 3), "no measurement is reported twice"


def test_a_sparkline_has_its_lowest_bar_at_the_lowest_of_the_last_scores():
    assert sparkline(()) == ""
    assert sparkline((5.0,)) == "▁"
    assert sparkline((3.0, 2.0, 1.0)) == "█▄▁"
    assert sparkline((1.0, 1.0)) == "▁▁"
    assert sparkline((9.0, *(1.0, 2.0) * 4)) == "▁█" * 4


EGGS = [  # label, state, fd, epoch, lr, betas.0, betas.1, latent_dim, r1, diagnoses
    ("0", "complete", 52.71, 20, 2e-4, 0.5, 0.999, 100, 0.0, ()),
    ("1", "complete", 74.62, 20, 6.23e-5, 0.8123, 0.9995, 17, 0.0, ("mode-collapse",)),
    ("2", "pruned", 1234.5, 5, 1.91e-3, 0.05, 0.91, 200, 10.0, ()),
    ("7", "complete", 36.05, 20, 4.5e-4, 0.31, 0.9911, 64, 10.0, ()),
    ("11", "fail", float("inf"), 3, 1.99e-3, 0.0, 0.9, 16, 10.0, ()),
]
KEYS = ("train.optimizer.lr", "train.optimizer.betas.0", "train.optimizer.betas.1", "model.latent_dim", "loss.r1")


@pytest.mark.parametrize("width", [50, 80, 120, 200])
def test_the_table_of_trials_looks_as_in_the_golden_file_and_no_number_is_cut(width, monkeypatch):
    screen = Terminal(width)
    monkeypatch.setattr(show, "out", screen.console)
    board = Board(engine.open_recipe("cgan_egg"))
    confirmed = (Confirmed(7, (18.9, 20.1, 19.4, 19.0)), Confirmed(0, (36.2, 35.1, 37.9, 36.6)))
    board.progress = SearchProgress(5, 5, 8, "", confirmed, winner=7, own=0)
    found = []
    for label, state, score, epoch, *values, codes in EGGS:
        why = "diverged: a loss became nan" if state == "fail" else ""
        given = dict(zip(KEYS, values, strict=True))
        scores = (score * 3, score * 2, score) if score < 1000 else ()
        found.append(TrialStatus(label, given, state, score, epoch, scores, why, codes, epochs=20))
    show.wide(board.table(found))
    text = "\n".join(screen.lines()) + "\n"
    assert text == (Path(__file__).parents[1] / "golden" / f"trials-{width}.txt").read_text(encoding="utf-8")
