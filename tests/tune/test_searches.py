"""A search on a real Ray of this machine, from the command line, on real digits."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import optuna
import pytest
from gantool import terminal
from gantool.errors import CheckpointError, ResourceError, RunError
from gantool.report import insight
from gantool.training import engine
from gantool.tune import results
from gantool.tune.board import Board, sparkline
from gantool.tune.cluster.connect import Node, Slots, share
from gantool.tune.study import Study, find_study
from optuna.trial import TrialState
from PIL import Image
from rich.console import Console

TINY = [
    *("--set", "data.source=digits", "--set", "model.generator=[16]", "--set", "model.discriminator=[16]"),
    *("--set", "train.evaluate_images=64", "--set", "train.extractors=[rand]", "--set", "tune.epochs=4"),
    *("--set", "tune.confirm=null", "--set", "tune.finish=null"),
]
INLINE = ["--engine", "inline"]  # where it does not matter who runs the trials, a start of Ray is saved


def gantool(*arguments: str, folder: Path, **options) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "gantool", *arguments]
    return subprocess.run(
        command, cwd=folder, env=environment(), capture_output=True, text=True, timeout=900, check=False, **options
    )


def environment() -> dict[str, str]:
    """A person's: Ray gives each worker as many threads as it has cores."""
    return {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}


def table(study: Path) -> list[dict[str, str]]:
    return list(csv.DictReader((study / "trials.csv").read_text(encoding="utf-8").splitlines()))


def trials(study: Path) -> list[optuna.trial.FrozenTrial]:
    held = json.loads((study / "study.json").read_text(encoding="utf-8"))
    name = held.get("search", held["study"])
    return optuna.load_study(study_name=name, storage=f"sqlite:///{(study / 'study.db').as_posix()}").trials


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory, data: Path) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """A study of five trials, made once."""
    folder = tmp_path_factory.mktemp("searched")
    done = gantool("tune", "gan14", *TINY, "--trials", "5", "--out", "a", "--data-dir", str(data), folder=folder)
    assert done.returncode == 0, done.stderr
    return folder / "a", done


def test_a_search_leaves_the_best_recipe_its_images_and_a_table(searched):
    study, done = searched
    assert {path.name for path in study.iterdir() if path.name[0] != "."} == {
        *("artifacts", "best.yaml", "best.png", "comparison.png", "recipe.yaml", "study.db", "study.json"),
        *("trials.csv", "trials"),
    }
    rows = table(study)
    assert len(rows) == 5
    best = min((row for row in rows if row["state"] == "complete"), key=lambda row: float(row["fd"]))
    chosen = engine.open_recipe(str(study / "best.yaml"))
    assert chosen.train.optimizer.lr == float(best["train.optimizer.lr"])
    assert chosen.train.optimizer.betas[1] == pytest.approx(float(best["train.optimizer.betas.1"]))
    assert chosen.model.latent_dim == int(best["model.latent_dim"])
    assert chosen.name == "gan14"
    assert chosen.train.epochs == engine.open_recipe("gan14").train.epochs, "the best recipe trains for its full length"
    with Image.open(study / "best.png") as grid:
        assert min(grid.size) > 14 * 4
    assert results.sentence(Study(study)).startswith(
        f"trial {best['number']} beat your recipe with one seed, which may be luck: it has fd "
        if best["number"] != "0"
        else "no setting beat your recipe, so keep it: with one seed, trial "
    )
    assert f"\n{results.sentence(Study(study))}\n" in done.stdout
    assert "\nrecipe: a/best.yaml   images: a/best.png\n" in done.stdout
    ranked = [float(value) for value in re.findall(r"^ +\d+ +([0-9.]+) +\d+/4 ", done.stdout, re.MULTILINE)]
    assert ranked == sorted(ranked), done.stdout
    assert len(ranked) == 5


def test_the_first_trial_is_the_recipe_itself_and_runs_to_the_end(searched):
    study, _ = searched
    own = trials(study)[0]
    assert own.params["train.optimizer.lr"] == 2e-4
    assert own.params["model.latent_dim"] == 100
    assert own.state == TrialState.COMPLETE
    assert max(own.intermediate_values) == 4


def test_every_trial_is_a_run_and_only_the_recipe_and_the_best_other_one_keep_their_weights(searched):
    study, _ = searched
    others = [trial for trial in trials(study)[1:] if trial.state == TrialState.COMPLETE]
    kept = {0, min(others, key=lambda trial: trial.value).number}
    for trial in trials(study):
        folder = study / "trials" / f"{trial.number:04d}"
        entries = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
        assert [entry["metrics/fd"] for entry in entries] == pytest.approx(list(trial.intermediate_values.values()))
        assert (folder / "checkpoints" / "best.pt").exists() == (trial.number in kept)


def test_a_healthy_search_prints_nothing_of_rays_or_optunas_own(searched):
    _, done = searched
    assert not re.search(r"(?i)\bray\b|warning|tensorboard|traceback|optuna|\[I ", done.stdout + done.stderr)


def test_the_best_recipe_trains_as_it_is(searched, data, tmp_path):
    study, _ = searched
    more = ("--set", "train.epochs=1", "--out", "run", "--data-dir", str(data))
    done = gantool("train", str(study / "best.yaml"), *more, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / "checkpoints" / "best.pt").exists()


def test_the_same_command_finishes_at_once_and_a_larger_number_adds_only_what_is_missing(searched, data):
    study, _ = searched
    before = {trial.number: trial.values for trial in trials(study)}
    command = ("tune", "gan14", *TINY, "--out", "a", "--data-dir", str(data))
    again = gantool(*command, "--trials", "5", folder=study.parent)
    assert again.returncode == 0, again.stderr
    assert "5 of 5 trials done" in again.stderr
    assert "at once" not in again.stderr, "no Ray is started when nothing is left to do"
    more = gantool(*command, *INLINE, "--trials", "7", folder=study.parent)
    assert more.returncode == 0, more.stderr
    after = trials(study)
    assert len(after) == 7
    assert {trial.number: trial.values for trial in after[:5]} == before
    assert len({trial.params["train.optimizer.lr"] for trial in after}) == 7, "a restart must not repeat its points"


@pytest.mark.skipif(os.name == "nt", reason="signals to another process are POSIX")
def test_an_interrupted_search_says_how_to_go_on_and_does_so_from_checkpoints(data, tmp_path):
    settings = ["--set", "tune.epochs=60", "--trials", "2", "--out", "s", "--data-dir", str(data)]
    command = ["tune", "gan14", *TINY, *settings]
    process = subprocess.Popen(
        [sys.executable, "-m", "gantool", *command],
        cwd=tmp_path,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:  # until a trial is under way and has been measured
        if (tmp_path / "s" / "trials" / "0000" / "log.jsonl").exists():
            break
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    printed, errors = process.communicate(timeout=240)
    assert process.returncode == 130, errors
    assert "Traceback" not in errors
    assert printed.endswith("stopped; to resume:\n  gantool tune s\n")
    old = trials(tmp_path / "s")
    running = [trial.number for trial in old if trial.state == TrialState.RUNNING]
    assert running, "what was under way stays so, for the next start to take up"
    finished = gantool("tune", "s", *INLINE, "--data-dir", str(data), folder=tmp_path)
    assert finished.returncode == 0, finished.stderr
    found = trials(tmp_path / "s")
    assert [trial.state for trial in found].count(TrialState.COMPLETE) >= 1
    assert TrialState.RUNNING not in [trial.state for trial in found]
    assert len(found) == 2
    assert [trial.params for trial in found[: len(old)]] == [trial.params for trial in old]
    assert any(found[number].user_attrs.get("resumed", 0) > 0 for number in running), "it goes on, not from zero"
    assert found[0].state == TrialState.COMPLETE
    assert found[0].user_attrs["own"]


def test_trials_that_fail_are_in_the_table_with_their_reason_and_when_all_fail_the_exit_code_is_4(data, tmp_path):
    command = ["tune", "gan14", *TINY, "--trials", "2", "--out", "s", "--data-dir", str(data)]
    deep = f"model.discriminator={[16] * 13}"  # at this rate its scores overflow in the first steps
    wild = [deep, "train.optimizer.lr=1000.0", "tune.space={train.optimizer.lr: {low: 999.0, high: 1000.0}}"]
    done = gantool(*command, *INLINE, *(part for change in wild for part in ("--set", change)), folder=tmp_path)
    assert done.returncode == 4, done.stderr
    assert "no trial finished; most often: " in done.stderr
    rows = table(tmp_path / "s")
    assert [row["state"] for row in rows] == ["fail", "fail"]
    assert all("became" in row["why"] for row in rows), "one attempt each, with the reason"


def finished(value, diagnoses):
    """A trial that ended with this metric and these diagnoses."""
    return optuna.trial.create_trial(
        params={"train.optimizer.lr": 1e-4 * value},
        distributions={"train.optimizer.lr": optuna.distributions.FloatDistribution(1e-5, 1e-2, log=True)},
        value=value,
        intermediate_values={4: value},
        user_attrs={"seconds": 1.0, "diagnoses": diagnoses},
    )


@pytest.mark.parametrize(
    ("outcomes", "best"),
    [
        ([(5.0, ["mode-collapse"]), (9.0, []), (7.0, ["no-progress"]), (3.0, ["memorised"])], 0),
        ([(5.0, ["d-overfit", "memorised"]), (3.0, ["memorised"])], 1),
    ],
    ids=["one copies", "all copy"],
)
def test_of_trials_of_version_0_1_one_that_copies_wins_only_among_its_kind(outcomes, best, tmp_path):
    """They have their diagnoses alone to tell."""
    space = {"train.optimizer.lr": {"low": 1e-5, "high": 1e-2, "log": True}}
    recipe = engine.open_recipe("gan14", {"data.source": "digits", "tune.space": space, "tune.trials": 9})
    (tmp_path / "study").mkdir()
    study = Study.create(tmp_path / "study", recipe)
    for value, diagnoses in outcomes:
        study.search.add_trial(finished(value, diagnoses))
    results.write(study)
    value, diagnoses = outcomes[best]
    assert study.winner().number == best
    assert engine.open_recipe(str(study.path / "best.yaml")).train.optimizer.lr == pytest.approx(1e-4 * value)
    assert table(study.path)[best]["diagnoses"] == " ".join(diagnoses)
    head = (study.path / "best.yaml").read_text(encoding="utf-8").splitlines()[0]
    sentence = f"your recipe has not finished; trial {best} has fd {value:.3f}, after 6 epochs"
    assert (head, results.sentence(study)) == (f"# {sentence}.", sentence)


def test_a_stopped_trial_has_its_best_measurement_wherever_it_is_told(tmp_path):
    recipe = engine.open_recipe("gan14", {"tune.space": {"train.optimizer.lr": {"low": 1e-5, "high": 1e-2}}})
    study = made(tmp_path / "s", recipe)
    stopped = finished(5.0, [])
    stopped.state, stopped.value, stopped.intermediate_values = TrialState.PRUNED, 9.0, {1: 5.0, 2: 9.0}
    stopped.distributions = dict(study.space.distributions)
    study.search.add_trial(stopped)
    results.write(study)
    assert table(study.path)[0]["fd"] == "5.0"
    board = Board(recipe)
    board.begin(study)
    assert board.rows["0"].best == 5.0
    assert insight.score(study.trials()[0]) == 5.0


@pytest.mark.parametrize("columns", [80, 140])
def test_the_table_of_a_confirmed_study_fits_a_terminal(columns, tmp_path, monkeypatch):
    recipe = engine.open_recipe("cgan_egg", {"tune.confirm": {"top": 1, "seeds": 4}, "tune.trials": 2})
    study = made(tmp_path / "s", recipe)
    for value in (41.78, 56.37):
        trial = study.ask()
        trial.report(value, 25)
        trial.set_user_attr("diagnoses", ["mode-collapse"])
        study.search.tell(trial, value)
    while study.race().pending:
        number, seed = study.race().pending[0]
        again = study.begin(study.confirmation, study.trials()[number].params, of=number, seed=seed)
        study.confirmation.tell(again, study.trials()[number].value + seed / 1e5)
    console = Console(file=io.StringIO(), width=columns, force_terminal=True, color_system=None)
    monkeypatch.setattr(terminal, "out", console)
    board = Board(recipe)
    board.begin(study)
    board.finish(interrupted=False, over="")
    lines = console.file.getvalue().splitlines()
    assert ("latent_dim" in lines[0]) != any(
        "a wider terminal shows" in line and "latent_dim" in line for line in lines
    )
    assert "…" not in "".join(lines), "nothing is cut"
    assert lines[0].split()[:4] == ["trial", "fd", "new", "seeds"]
    shown = [line for line in lines[1:] if re.match(" +[01] ", line)]
    assert len(shown) == 2
    assert all(re.search(r" \d\d\.\d+ ± \d\.\d+ \(2\) ", line) for line in shown)
    start = lines[0].index("state")
    told = "".join(line[start:].strip() for line in lines[1 : lines.index(shown[1])])
    assert told.replace(" ", "") == "winner,yourrecipe,finished,mode-collapse"


def test_a_trial_that_diverges_fails_at_once_with_what_was_seen(data, tmp_path):
    space = ["--set", "tune.space={train.optimizer.lr: [2e-4, 0.3]}", "--set", "tune.seed=1", "--set", "tune.epochs=10"]
    every = ["--set", "train.evaluate_every=1", "--set", "train.batch_size=32"]
    done = gantool(
        *("tune", "gan14", *TINY, *space, *every, "--trials", "5", "--out", "a", "--data-dir", str(data)),
        *INLINE,
        folder=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    rows = table(tmp_path / "a")
    wild = [row for row in rows if row["train.optimizer.lr"] == "0.3"]
    assert wild, rows
    for row in wild:
        assert row["state"] == "fail"
        assert row["why"].startswith("diverged: ")
    log = tmp_path / "a" / "trials" / f"{int(wild[0]['number']):04d}" / "log.jsonl"
    assert len(log.read_text(encoding="utf-8").splitlines()) < 10
    assert engine.open_recipe(str(tmp_path / "a" / "best.yaml")).train.optimizer.lr == 2e-4


def test_too_few_images_to_tell_settings_apart_are_refused_and_few_are_said_to_be_few(data, tmp_path):
    for name, count in (("ten", 10), ("thirty", 30)):
        (tmp_path / name).mkdir()
        for index in range(count):
            Image.new("L", (14, 14), 8 * index).save(tmp_path / name / f"{index}.png")
    small = ["--set", "data.source=ten", "--trials", "2", "--out", "a", "--data-dir", str(data)]
    done = gantool("tune", "gan14", *TINY, *small, folder=tmp_path)
    assert done.returncode == 3
    assert done.stderr.splitlines()[-1] == (
        f"error: {tmp_path / 'ten'}: has 10 images, too few to tell settings apart; give it 16 or more, or use "
        "gantool train"
    )
    small[1], small[5] = "data.source=thirty", "b"
    done = gantool("tune", "gan14", *TINY, *small, *INLINE, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "learning from 18 images; 12 more are held out; with fewer than 60 images fd ranks" in done.stderr


def made(path: Path, recipe) -> Study:
    path.mkdir()
    return Study.create(path, recipe)


def test_a_study_goes_on_with_its_own_recipe_only(tmp_path):
    recipe = engine.open_recipe("gan14")
    made(tmp_path / "s", recipe)
    free = {"tune.trials": 99, "tune.hours": 1, "tune.sampler": "random", "tune.confirm": None, "tune.parallel": 1}
    Study.resume(tmp_path / "s", engine.change(recipe, free))
    with pytest.raises(
        RunError, match=r"is the study of another recipe \(train\.batch_size differs\); search in a new directory, or"
    ):
        Study.resume(tmp_path / "s", engine.change(recipe, {"train.batch_size": 8}))
    with pytest.raises(RunError, match=r"\(tune\.seed differs\)"):
        Study.resume(tmp_path / "s", engine.change(recipe, {"tune.seed": 8}))


@pytest.mark.parametrize("content", [b"", b"not a database at all, but long enough to look like one" * 40])
def test_a_damaged_database_is_one_clear_error_and_stays_as_it_is(content, tmp_path):
    recipe = engine.open_recipe("gan14")
    made(tmp_path / "s", recipe)
    database = tmp_path / "s" / "study.db"
    whole = database.read_bytes()
    damaged = content or whole[: len(whole) // 2]
    database.write_bytes(damaged)
    with pytest.raises(CheckpointError, match=r"study.db: not a study, or damaged; it is left as it is"):
        Study.resume(tmp_path / "s", recipe).spent()
    assert database.read_bytes() == damaged


def test_a_directory_that_holds_something_else_is_refused(tmp_path):
    (tmp_path / "photo.jpg").write_bytes(b"x")
    with pytest.raises(RunError, match="already holds something"):
        find_study(tmp_path, engine.open_recipe("gan14"), fresh=False)


def tuned(**changes):
    changes = {f"tune.{key}": value for key, value in changes.items()}
    return engine.open_recipe("gan14", changes).tune


@pytest.mark.parametrize(
    ("nodes", "settings", "need", "slots", "sentence"),
    [
        ([(2, 0)], {}, None, (2, 1, 0), "2 trials at once: one on each core"),
        ([(8, 0)], {"cpus_per_trial": 3}, None, (2, 3, 0), "2 trials at once: 3 cores each"),
        ([(8, 0)], {"parallel": 1}, None, (1, 1, 0), "1 trial at once: tune.parallel 1"),
        ([(8, 0)], {"trials_per_gpu": 2}, None, (8, 1, 0), "8 trials at once: one on each core"),
        (
            [(16, 1)],
            {},
            (2e9, 141e9),
            (16, 1, 1 / 16),
            "16 trials at once, 16 on each GPU: as many as a GPU has cores (16); a trial takes 2.0 of 141 GB",
        ),
        (
            [(16, 1)],
            {},
            (3e9, 12e9),
            (3, 1, 1 / 3),
            "3 trials at once, 3 on each GPU: a trial takes 3.0 of 12 GB",
        ),
        ([(16, 2)], {}, (20e9, 12e9), (2, 1, 1), "2 trials at once, 1 on each GPU: a trial takes 20.0 of 12 GB"),
        (
            [(16, 2)],
            {"trials_per_gpu": 2},
            None,
            (4, 1, 0.5),
            "4 trials at once, 2 on each GPU: tune.trials_per_gpu 2",
        ),
        (
            [(1, 1), (31, 0)],
            {"trials_per_gpu": 4},
            None,
            (1, 1, 0.25),
            "1 trial at once, 4 on each GPU: tune.trials_per_gpu 4",
        ),
    ],
)
def test_trials_are_counted_node_by_node(nodes, settings, need, slots, sentence):
    machines = [Node(str(index), "host", cpus, gpus) for index, (cpus, gpus) in enumerate(nodes)]
    found = share(machines, tuned(**settings), "auto", need)
    assert (found.count, found.cpus, found.gpus) == pytest.approx(slots)
    assert found.sentence() == sentence


def test_a_gpu_is_left_alone_where_the_cpu_is_asked_for():
    assert share([Node("0", "host", 4, 2)], tuned(), "cpu") == Slots(4, 1, 0, "one on each core")


@pytest.mark.parametrize(
    ("settings", "device", "message"),
    [
        ({"cpus_per_trial": 5}, "auto", "tune.cpus_per_trial: 5 cores on one machine, but the largest has 4; ask for"),
        ({}, "cuda", "--device cuda: no machine of this Ray has a GPU; leave it out"),
    ],
)
def test_what_no_machine_can_run_is_refused_before_ray_waits_for_ever(settings, device, message):
    with pytest.raises(ResourceError, match=message):
        share([Node("0", "a", 4, 0), Node("1", "b", 2, 0)], tuned(**settings), device)


def test_a_sparkline_has_its_lowest_bar_at_the_lowest_score():
    assert sparkline([]) == ""
    assert sparkline([5.0]) == "▁"
    assert sparkline([3.0, 2.0, 1.0]) == "█▄▁"
    assert len(sparkline([float(n) for n in range(100)])) == 8
