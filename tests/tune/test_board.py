"""How a search is shown: live on a terminal, a line an event in a pipe, an object an event for programs."""

from __future__ import annotations

import io
import json
import re
import time
from pathlib import Path

import pytest
from gantool import terminal as show
from gantool.training import engine
from gantool.tune.board import Board, Row, sparkline
from gantool.tune.race import Confirmed
from gantool.tune.study import Study
from gantool.tune.trials import TrialEnvironment, Trials
from rich.console import Console
from test_search import BETA, RATE, bowl, made, planned, quick, rows, run, tiny

from screens import Terminal

STATE = ["your", "recipe,", "finished"]  # of the first trial
SEARCH = {"tune__epochs": 2, "tune__pruner": "none"}


@pytest.fixture
def terminal(monkeypatch):
    """A terminal of 140 columns; gives what was drawn on it."""
    console = Console(force_terminal=True, width=140, file=io.StringIO(), no_color=True, highlight=False)
    monkeypatch.setattr(show, "err", console)
    return console.file


def drawn(board):
    """The image as it is on the screen at this moment."""
    console = Console(width=140, file=io.StringIO())
    console.print(board._image())
    return console.file.getvalue()


def begun(study, data_dir, *, slots=1, gpus=0.0, as_json=False):
    board = Board(study.recipe, as_json=as_json)
    trials = Trials(study, board, TrialEnvironment(data_dir, "", "cpu", gpus=gpus, slots=slots), [])
    board.begin(study, trials)
    return board, trials


def report(epoch, score, **more):
    return {
        "score": score, "best": score, "best_epoch": epoch, "epoch": epoch, "seconds": 0.1, "diagnoses": [],
        "finished": epoch == 4, "resumed": 0, **more,
    }  # fmt: skip


def ended(trials, key, *results):
    for result in results:
        trials.measured(key, result)
    trials.ended(key, died=False)


def test_the_image_has_a_table_of_what_ended_and_a_bar_for_what_runs(data_dir, tmp_path):
    study = made(tmp_path / "s", tune__trials=5, tune__pruner="none")
    board, trials = begun(study, data_dir, slots=2)
    for key in "ab":
        trials.next(key)
    ended(trials, "a", report(1, 30.0), report(2, 20.0), report(4, 10.0))
    trials.measured("b", report(1, 40.0))
    trials.measured("b", report(2, 25.0))
    head, time_line, heading, row, _, running = drawn(board).splitlines()
    assert head.rstrip() == "1 finished, 1 running of 5"
    assert re.match(r"\ds so far, about \ds left; lowest fd 10.00 \(trial 0, one seed\) *$", time_line)
    assert heading.split() == ["trial", "fd", "epoch", "lr", "betas.0", "state"]
    assert row.split() == ["0", "10.00", "4/4", "█▄▁", "0.0002", "0.5", *STATE]
    assert re.match(r"trial 1  ━{12} {12}  2/4  fd 25.00  █▁ *$", running)


def test_what_runs_is_shown_as_far_as_its_log_says(data_dir, tmp_path):
    study = made(tmp_path / "s")
    board, trials = begun(study, data_dir)
    config = trials.next("a")
    folder = study.folder(0)
    assert config["folder"] == str(folder)
    assert board.rows["0"].reached() == 0
    folder.mkdir()
    lines = [json.dumps({"epoch": epoch, "pad": "x" * 3000}) for epoch in (1, 2, 3)]
    (folder / "log.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    assert board.rows["0"].reached() == 3
    assert " 3/4" in drawn(board)
    with (folder / "log.jsonl").open("a") as file:
        file.write('{"epoch": 4, "half a li')
    assert board.rows["0"].reached() == 0, "a line that is half written says nothing"


def test_the_time_left_is_the_epochs_to_come_at_what_one_took_on_all_slots(data_dir, tmp_path):
    study = made(tmp_path / "s", tune__trials=8, tune__pruner="none", tune__confirm={"top": 1, "seeds": 2})
    board, trials = begun(study, data_dir, slots=4)
    assert board._left() == "", "nothing is known yet"
    trials.next("a")
    trials.next("b")
    ended(trials, "a", report(4, 1.0))
    board.spent = [(100.0, 4)]
    # Seven more trials, and one candidate and the recipe with two seeds each: of 4 epochs of 25 s each, on 4 slots.
    assert board.todo == 4 * (6 + 4)
    assert board._left() == f", about {show.duration(11 * 100 / 4)} left"
    trials.measured("b", report(2, 1.0))
    assert board._left() == f", about {show.duration(10.5 * 100 / 4)} left", "half of the running one is done"
    ended(trials, "b", report(4, 2.0))
    board.spent = [(100.0, 4), (200.0, 4)]
    assert board._left() == f", about {show.duration(10 * 150 / 4)} left"


def test_the_time_left_counts_the_training_to_the_full_length_and_the_longest_that_runs(data_dir, tmp_path):
    settings = {"tune__trials": 2, "tune__pruner": "none", "tune__confirm": {"top": 1, "seeds": 2}}
    study = made(tmp_path / "s", **settings, tune__finish="full", train__epochs=44)
    board, trials = begun(study, data_dir, slots=2)
    trials.next("a")
    ended(trials, "a", report(4, 2.0))
    # Another trial, two trainings of each with new seeds, and 40 more epochs of each.
    assert board.todo == 4 + 4 * 4 + 2 * 40
    trials.next("b")
    assert board.todo == 4 * 4 + 2 * 40
    ended(trials, "b", report(4, 1.0))
    for _ in range(4):
        trials.next("c")
        ended(trials, "c", report(4, 1.0 if trials.live["c"].label.startswith("1 ") else 2.0))
    assert board.todo == 2 * 40, "the verdict is there"
    trials.next("d")
    trials.next("e")
    assert board.todo == 0
    board.spent = [(30.0, 30)]
    assert board._left() == f", about {show.duration(40)} left"
    trials.measured("d", report(34, 1.0))
    assert board._left() == f", about {show.duration(40)} left", "the other one has 40 epochs to go"
    ended(trials, "e", report(44, 1.0))
    board.spent = [(30.0, 30)]
    assert board._left() == f", about {show.duration(10)} left"


def test_hours_of_gpus_are_shown_where_there_are_gpus(data_dir, tmp_path):
    board, trials = begun(made(tmp_path / "s"), data_dir, gpus=0.5)
    trials.next("a")
    trials.live["a"].start -= 3600
    assert "; 0.50 GPU hours" in drawn(board)


@pytest.mark.parametrize(
    ("code", "lowest"),
    [
        ("mode-collapse", "lowest fd 1.000 (trial 1, one seed)"),
        ("memorised", "lowest fd 9.000 (trial 0, one seed; copies of training images left out)"),
    ],
)
def test_copies_are_not_called_the_lowest_and_other_diagnoses_change_nothing(code, lowest, data_dir, tmp_path):
    study = made(tmp_path / "s", tune__trials=3, tune__pruner="none")
    board, trials = begun(study, data_dir)
    for key, score, codes in (("a", 9.0, []), ("b", 1.0, [code])):
        trials.next(key)
        ended(trials, key, report(4, score, diagnoses=codes, copies="memorised" in codes))
    time_line, _, first, second = drawn(board).splitlines()[1:5]
    assert time_line.rstrip().endswith(f"; {lowest}")
    assert first.split()[:2] == ["1", "1.000"]
    assert first.rstrip().endswith(f"finished, {code}")
    assert second.split()[:2] == ["0", "9.000"]


def test_a_trial_that_copies_has_that_reason_for_its_rank_wherever_it_is_shown(data_dir, tmp_path):
    study = made(tmp_path / "s", tune__trials=3, tune__pruner="none")
    board, trials = begun(study, data_dir)
    trials.next("a")
    ended(trials, "a", report(4, 1.0, diagnoses=["d-overfit"], copies=True))
    assert drawn(board).splitlines()[3].rstrip().endswith("your recipe, finished, d-overfit, memorised")
    assert [row["diagnoses"] for row in rows(study.path)] == ["d-overfit memorised"]
    assert study.trials()[0].user_attrs["diagnoses"] == ["d-overfit", "memorised"]


def test_keys_that_end_alike_are_told_apart_and_a_key_that_was_not_searched_is_left_empty(data_dir, tmp_path):
    rate = {"low": 1e-5, "high": 1e-2, "log": True}
    choice = {"choice": [0, 1], "when": {"loss.name": "hinge"}}
    space = {"train.generator.lr": rate, "train.discriminator.lr": rate, "loss.r1": choice}
    study = made(tmp_path / "s", tune__space={**space, "loss.name": ["hinge", "non_saturating"]})
    board, trials = begun(study, data_dir)
    trials.next("a")
    ended(trials, "a", report(4, 1.0))
    heading, row = drawn(board).splitlines()[2:4]
    assert heading.split() == ["trial", "fd", "epoch", "generator.lr", "discriminator.lr", "r1", "loss.name", "state"]
    assert row.split() == ["0", "1.000", "4/4", "▁", "0.0002", "0.0002", "non_saturating", *STATE]


def test_live_on_a_terminal_the_table_is_drawn_and_gone_at_the_end(data_dir, tmp_path, terminal, capsys):
    def score(recipe, epoch):
        time.sleep(0.1)
        return bowl(recipe, epoch)

    run(tiny(tune__trials=3, tune__pruner="none"), tmp_path / "s", data_dir, quick(score))
    text = terminal.getvalue()
    assert "\x1b[" in text
    assert re.search(r"trial 1 +━+ +[1-3]/4 +fd ", text)
    assert re.search(r"1 finished, 1 running of 3.*lowest fd", text, re.DOTALL)
    assert re.search(r"so far, about \d+s left; lowest fd \d\.\d+ \(trial \d, one seed\)", text)
    assert "trial 0 finished" not in text, "no line an event where there is an image"
    assert re.search(r"^ +\d  \d\.\d+ +4/4 ", capsys.readouterr().out, re.MULTILINE)


def lines_of(messages):
    """The lines about trials, without times."""
    lines = [line for line in messages if line.startswith("trial ")]
    return [re.sub(r"\d+s so far(, about \d+s left)?", "…", line) for line in lines]


def test_in_a_pipe_each_trial_is_a_line(data_dir, tmp_path, logged):
    def plan(number, seed):
        return ["diverged: at once" if number == 1 else 3.0 - number]

    run(
        tiny(**SEARCH | {"tune__trials": 3}, tune__confirm={"top": 1, "seeds": 1}),
        tmp_path / "s",
        data_dir,
        planned(plan),
    )
    seed = Study(tmp_path / "s").seeds()[-1]
    lines = [line for line in logged if line.startswith("trial ")]
    assert [re.sub(r"\d+s so far(, about \d+s left)?", "…", line) for line in lines] == [
        "trial 0 finished at epoch 2: fd 3.500; 1 finished of 3; …; lowest fd 3.500 (trial 0, one seed)",
        "trial 1 failed at epoch 0: diverged: at once; 1 finished, 1 failed of 3; …; "
        "lowest fd 3.500 (trial 0, one seed)",
        "trial 2 finished at epoch 2: fd 1.500; 2 finished, 1 failed of 3; …; "
        "lowest fd 1.500 (trial 2, one seed); new seeds compare trial 2 with your recipe",
        f"trial 2 seed {seed} finished at epoch 2: fd 1.500; 2 finished, 1 failed of 3; "
        "1 training with new seeds done; …; lowest fd 1.500 (trial 2, one seed); new seeds compare trial 2 with your "
        "recipe",
        f"trial 0 seed {seed} finished at epoch 2: fd 3.500; 2 finished, 1 failed of 3; "
        "2 trainings with new seeds done; …; trial 2: fd 1.500, your recipe: 3.500, 1 new seed each",
    ]


def test_a_training_to_the_full_length_is_a_line_and_no_new_seed(data_dir, tmp_path, logged):
    chosen = tiny(**SEARCH, tune__trials=2, tune__finish="full", train__epochs=6)
    run(chosen, tmp_path / "s", data_dir, planned(lambda number, seed: [3.0 - number]))
    assert lines_of(logged)[2:] == [
        "trial 0 to the end finished at epoch 6: fd 3.167; 2 finished of 2; …; lowest fd 2.500 (trial 1, one seed)",
        "trial 1 to the end finished at epoch 6: fd 2.167; 2 finished of 2; …; lowest fd 2.500 (trial 1, one seed)",
    ]


def test_trainings_to_the_full_length_are_to_do_and_have_its_epochs(data_dir, tmp_path):
    study = made(tmp_path / "s", tune__trials=2, tune__pruner="none", tune__finish="full", train__epochs=8)
    board, trials = begun(study, data_dir, slots=2)
    for key, score in (("a", 3.0), ("b", 2.0)):
        trials.next(key)
        ended(trials, key, report(4, score))
    assert board.todo == 2 * 4
    for key in "cd":
        trials.next(key)
    trials.measured("c", report(4, 2.0))
    trials.measured("c", report(6, 2.0))
    pace = sum(seconds for seconds, _ in board.spent) / 8
    assert board._left() == f", about {show.duration(4 * pace)} left", "of the other one"
    assert re.search(r"^trial 0 to the end +━+ +6/8  fd 2.000 ", drawn(board), re.MULTILINE)
    ended(trials, "c", report(8, 1.5, finished=True))
    assert board.todo == 0


def test_what_was_confirmed_before_a_restart_counts(data_dir, tmp_path, logged):
    chosen, stopped = tiny(**SEARCH, tune__trials=2, tune__confirm={"top": 1, "seeds": 2}), []

    def plan(number, seed):
        if (number, seed) == (1, last):
            stopped.append(2)
        return [3.0 - number]

    last = made(tmp_path / "seeds", tune__confirm={"top": 1, "seeds": 2}).seeds()[-1]
    run(chosen, tmp_path / "s", data_dir, planned(plan), stopped=stopped)
    assert [(one.number, len(one.values)) for one in Study(tmp_path / "s").confirmed()] == [(1, 1), (0, 1)]
    logged.clear()
    run(chosen, tmp_path / "s", data_dir, planned(lambda number, seed: [3.0 - number]))
    assert any(re.fullmatch(r"study .*: 2 of 2 trials done; 1 interrupted go on", line) for line in logged)
    assert [re.search(r"\d+ trainings with new seeds done", line)[0] for line in lines_of(logged)] == [
        "3 trainings with new seeds done",
        "4 trainings with new seeds done",
    ]


def test_at_the_end_the_table_names_the_winner_and_counts_new_seeds(data_dir, tmp_path, capsys):
    def plan(number, seed):
        return [3.0 - number, *(["mode-collapse"] if number == 2 else [])]

    chosen = tiny(**SEARCH, tune__trials=3, tune__confirm={"top": 2, "seeds": 4})
    run(chosen, tmp_path / "s", data_dir, planned(plan))
    heading, *table = [re.split(r"  +", line.strip()) for line in capsys.readouterr().out.splitlines()]
    assert heading == ["trial", "fd", "new seeds", "epoch", "lr", "betas.0", "state"]
    assert [(row[0], row[1], row[2], row[-1]) for row in table] == [
        ("2", "1.500", "1.500 (6)", "winner, finished, mode-collapse"),
        ("1", "2.500", "2.500 (1)", "finished"),
        ("0", "3.500", "3.500 (4)", "your recipe, finished"),
    ]


def events(text):
    def refuse(word):
        raise AssertionError(word)

    return [json.loads(line, parse_constant=refuse) for line in text.splitlines()]


def test_for_programs_each_event_is_an_object_in_its_order(data_dir, tmp_path, capsys):
    def plan(number, seed):
        return ["diverged: at once" if number == 1 else 3.0 - number]

    chosen = tiny(**SEARCH, tune__trials=3, tune__confirm={"top": 1, "seeds": 1}, tune__finish="full", train__epochs=4)
    study = run(chosen, tmp_path / "s", data_dir, planned(plan), as_json=True)
    told, seed = events(capsys.readouterr().out), study.seeds()[-1]
    assert [(event["event"], event.get("trial")) for event in told] == [
        ("begin", None),
        *[(what, "0") for what in ("started", "measured", "measured", "ended")],
        *[("started", "1"), ("ended", "1")],
        *[(what, "2") for what in ("started", "measured", "measured", "ended")],
        *[(what, f"2 seed {seed}") for what in ("started", "measured", "measured", "ended")],
        *[(what, f"0 seed {seed}") for what in ("started", "measured", "measured", "ended")],
        *[(what, "0 to the end") for what in ("started", "measured", "measured", "measured", "measured", "ended")],
        *[(what, "2 to the end") for what in ("started", "measured", "measured", "measured", "measured", "ended")],
        ("end", None),
    ]
    assert told[1]["values"] == {RATE: 2e-4, BETA: 0.5}
    assert told[2] == {"event": "measured", "trial": "0", "epoch": 1, "fd": 4.0, "best": 4.0}
    failed = next(event for event in told if event["event"] == "ended" and event["trial"] == "1")
    assert (failed["state"], failed["fd"], failed["why"]) == ("fail", None, "diverged: at once")
    end = told[-1]
    assert (end["best"], end["interrupted"], end["spent_budget"]) == (2, False, None)
    assert end["sentence"] == (
        "cannot tell yet whether trial 2 is better than your recipe: over 1 new seed, it has fd 1.500 and your recipe "
        "3.500; these are too few results for an interval, after 2 epochs; trained on with one seed: your recipe 3.250 "
        "after 4 epochs, trial 2 1.250 after 4 epochs"
    )
    assert end["verdict"] == {
        "kind": "unsure",
        "trial": 2,
        "values": [1.5],
        "own": [3.5],
        "ratio": pytest.approx(1.5 / 3.5),
        "interval": [0.0, None],
        "epochs": 2,
        "copies": False,
    }
    run(chosen, tmp_path / "s", data_dir, as_json=True)
    again = events(capsys.readouterr().out)
    assert [event["event"] for event in again] == ["begin", "end"]
    assert (again[0]["done"], again[0]["trials"]) == (3, 3)


def test_programs_are_told_of_what_was_interrupted_and_taken_up(data_dir, tmp_path, capsys):
    stopped = []

    def score(recipe, epoch):
        if epoch == 2:
            stopped.append(15)
        return bowl(recipe, epoch)

    run(tiny(tune__trials=2), tmp_path / "s", data_dir, quick(score), stopped=stopped, as_json=True)
    told = events(capsys.readouterr().out)
    assert [event["event"] for event in told] == ["begin", "started", "measured", "measured", "interrupted", "end"]
    assert told[-1]["interrupted"]
    assert told[-1]["best"] is None
    run(tiny(tune__trials=2), tmp_path / "s", data_dir, as_json=True)
    begin, first, second, *_ = events(capsys.readouterr().out)
    assert (begin["done"], begin["interrupted"]) == (0, 1)
    assert (first["event"], first["trial"]) == ("started", "0")
    assert (second["event"], second["epoch"]) == ("measured", 3), "what was told before is not told again"


def test_a_row_of_a_further_training_is_known_by_its_label():
    assert Row("3 seed 8", {}).again
    assert Row("3 to the end", {}).again
    assert not Row("3", {}).again


def test_sparklines_of_many_scores_show_the_last_ones():
    assert sparkline([9.0] + [1.0, 2.0] * 4) == "▁█" * 4
    assert sparkline([1.0, 1.0]) == "▁▁"


def test_it_is_said_what_new_seeds_are_for(data_dir, tmp_path, logged):
    chosen = tiny(**SEARCH | {"tune__trials": 4}, tune__confirm={"top": 2, "seeds": 2})
    run(chosen, tmp_path / "s", data_dir, planned(lambda number, seed: [9.0 - number]))
    lines = [line for line in logged if line.startswith("trial ")]
    assert lines[2].endswith("; lowest fd 7.500 (trial 2, one seed)")
    assert lines[3].endswith("; lowest fd 6.500 (trial 3, one seed); new seeds choose among trials 3, 2")
    assert any(line.endswith("; new seeds compare trial 3 with your recipe") for line in lines)
    assert lines[-1].endswith("; trial 3: fd 6.500, your recipe: 9.500, 2 new seeds each")


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
    board.own, board.winner = "0", "7"
    board.confirmed = {"7": Confirmed(7, (18.9, 20.1, 19.4, 19.0)), "0": Confirmed(0, (36.2, 35.1, 37.9, 36.6))}
    for label, state, score, epoch, *values, codes in EGGS:
        why = "diverged: a loss became nan" if state == "fail" else ""
        given = dict(zip(KEYS, values, strict=True))
        scores = [score * 3, score * 2, score] if score < 1000 else []
        board.rows[label] = Row(label, given, state, score, epoch, scores, why, codes, epochs=20)
    board._print(board._table(list(board.rows.values())))
    text = "\n".join(screen.lines()) + "\n"
    assert text == (Path(__file__).parents[1] / "golden" / f"trials-{width}.txt").read_text(encoding="utf-8")
