"""Every state of the disk after a crash, of the process or of the whole machine: the old or the new, and resumable.

The operations of a command are recorded and replayed up to each of them, as they are after `kill -9`, and with every
kind of loss that a power failure may cause; see `disks.RecordingDisk`. By default the states are chosen by a seed.
`nox -s crash` takes many more.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import random
import shutil
import sqlite3
import tempfile
import zipfile
from pathlib import Path

import pytest
from gantool import checkpoints, models
from gantool.data.archive import unpack
from gantool.data.prepare import prepare
from gantool.recipe import load as recipes
from gantool.recipe.blocks import Data
from gantool.runs import Run
from gantool.training import engine
from gantool.training.resume import begin

import tiny
from disks import RecordingDisk, laid, left_over

ALL = bool(os.environ.get("GANTOOL_CRASH"))  # set by `nox -s crash`
LOSSES = 12 if ALL else 1  # power losses that are tried after each operation
RESUMED = 300 if ALL else 5  # states that are resumed to the end; the others are only opened
EPOCHS = 3
KEPT = 2  # the first epoch of which a resumed run keeps a checkpoint


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    folder = tmp_path_factory.mktemp("crashes")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GANTOOL_DATA", str(folder / "data"))
        yield tiny.photos(folder / "photos")


@pytest.fixture
def report(capsys):
    """Print a line in `nox -s crash`."""

    def say(text):
        if ALL:
            with capsys.disabled():
                print(f"\n{text}")

    return say


def states(disk):
    """Yield the number of operations before a crash and the files after it, each state once."""
    draw, seen = random.Random(0), set()
    for count in dict.fromkeys(disk.ends):
        found = [disk.after_kill(count), *(disk.after_power_loss(count, draw) for _ in range(LOSSES))]
        for files in found:
            key = hashlib.sha256()
            for name in sorted(files):
                key.update(b"%s\0%d\0" % (name.encode(), -1 if files[name] is None else len(files[name])))
                key.update(files[name] or b"")
            if key.digest() not in seen:
                seen.add(key.digest())
                yield count, files


def some(found):
    """Return the indices of the states that are resumed."""
    return set(random.Random(1).sample(range(len(found)), min(RESUMED, len(found))))


def promised(disk, count):
    """Return the newest result that was promised before a crash."""
    return max((value for at, value in disk.marks if at <= count), default=0)


# Training: the recipe, checkpoints, the end of an epoch


def trained(recipe, run, disk):
    """Train, and note after each epoch that it is saved."""
    with contextlib.closing(engine.train(recipe, run, data_dir=Path(os.environ["GANTOOL_DATA"]), device="cpu")) as all_:
        for one in all_:
            if one.finished:
                disk.mark(one.epoch)


@functools.cache
def epoch_of(data):
    """Return the epoch of a checkpoint, by its content; raise CheckpointError if it is damaged."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "a.pt").write_bytes(data)
        return checkpoints.load(Path(folder) / "a.pt")["epoch"]


@functools.cache
def recipe_of(text):
    return recipes.parse(text.decode(), "recipe.yaml", models.KINDS)


@functools.cache
def ended_in(data):
    """Return the numbers of the trials in a database that have ended."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "a.db").write_bytes(data)
        with contextlib.closing(sqlite3.connect(Path(folder) / "a.db")) as database:
            if not database.execute("SELECT name FROM sqlite_master WHERE name = 'trials'").fetchall():
                return ()
            rows = database.execute("SELECT number, state FROM trials").fetchall()
    assert len(rows) <= 2
    return tuple(number for number, state in rows if state == "COMPLETE")


def entries_in(data):
    """Return the whole entries of a log."""
    return [tiny.plain(json.loads(line)) for line in data.split(b"\n")[:-1]]


def look_at_run(files, wanted, epochs):
    """Check a run without training: nothing is damaged, and all that `last.pt` continues from is there."""
    if "run/recipe.yaml" not in files:
        assert not epochs, "the run is gone"
        return
    recipe_of(files["run/recipe.yaml"])
    known = {Path(name).stem: epoch_of(data) for name, data in files.items() if name.endswith(".pt")}
    done = known.get("last", 0)
    assert done >= epochs, f"last.pt is of epoch {done}, but {epochs} were saved"
    assert all(f"epoch-{epoch:04d}" in known for epoch in range(KEPT, done + 1)), "a kept checkpoint is missing"
    assert "last" in known or "previous" not in known, "between two renamings there is no last.pt"
    if done:
        assert entries_in(files["run/log.jsonl"])[:done] == wanted["log.jsonl"][:done]
    for epoch in range(1, done + 1):
        name = f"samples/epoch-{epoch:04d}.png"
        assert files[f"run/{name}"] == wanted[name], name


def crashes_of(disk, folder, check, resume):
    """Check all states, resume some of them, and return what was done and everything that is wrong."""
    found, wrong = list(states(disk)), []
    chosen = some(found)
    for index, (count, files) in enumerate(found):
        try:
            check(files, promised(disk, count))
            if index in chosen:
                resume(laid(files, folder))
        except Exception as error:  # of any kind: it is what is looked for
            wrong.append((count, f"{type(error).__name__}: {error}"[:300]))
        shutil.rmtree(folder, ignore_errors=True)
    return f"{len(found)} states, {len(chosen)} of them resumed, {len(wrong)} wrong", wrong


def same(found, wanted):
    assert found == wanted, [key for key in found | wanted if found.get(key) != wanted.get(key)]


@pytest.mark.parametrize("start", ["new", "resumed", "resumed without its newest checkpoint"])
def test_a_training_loses_nothing(start, source, tmp_path, monkeypatch, report):
    place = tmp_path / "recorded"
    place.mkdir()
    monkeypatch.chdir(place)
    words = tiny.train(source, "--out", "run", "--resume", train__keep_every=1, train__epochs=EPOCHS)
    if start != "new":
        assert tiny.run(*tiny.train(source, "--out", "run", train__epochs=1))[0] == 0
    if start == "resumed without its newest checkpoint":
        Path("run/checkpoints/last.pt").replace("run/checkpoints/previous.pt")
    disk = RecordingDisk(place)
    with disk.mounted():
        if start == "new":
            recipe = engine.open_recipe("gan14", tiny.changes(source, train__keep_every=1, train__epochs=EPOCHS))
            run = Run.create(recipes.dump(recipe), name="a", out=Path("run"))
        else:
            changed = {"train.epochs": EPOCHS, "train.keep_every": 1}
            recipe, run = begin("run", changed, out=None, resume=True)
        trained(recipe, run, disk)
    wanted = tiny.content(place / "run")

    def look(files, epochs):
        if start != "resumed without its newest checkpoint" or epochs:
            look_at_run(files, wanted, epochs)

    def resume(folder):
        monkeypatch.chdir(folder)
        code, text = tiny.run(*words)
        assert code == 0, text
        assert left_over("run") == []
        same(tiny.content(Path("run")), wanted)

    done, wrong = crashes_of(disk, tmp_path / "crash", look, resume)

    report(f"train, {start}: {done}")
    assert wrong == []


# A search


def test_a_search_loses_nothing(source, tmp_path, monkeypatch, report):
    place = tmp_path / "recorded"
    place.mkdir()
    monkeypatch.chdir(place)
    words, disk = tiny.tune(source, "--out", "study"), RecordingDisk(place)
    with disk.mounted():
        assert tiny.run(*words)[0] == 0
    wanted = tiny.content(place / "study")

    def look(files, _):
        for number in ended_in(files.get("study/study.db", b"")):
            run = f"study/trials/{number:04d}"
            assert entries_in(files[f"{run}/log.jsonl"]) == wanted[f"trials/{number:04d}/log.jsonl"]
            for epoch in (1, 2):
                name = f"samples/epoch-{epoch:04d}.png"
                assert files[f"{run}/{name}"] == wanted[f"trials/{number:04d}/{name}"]

    def resume(folder):
        monkeypatch.chdir(folder)
        code, text = tiny.run(*words)
        assert code == 0, text
        assert [left for left in left_over("study") if not left.endswith("lock")] == []
        same(tiny.content(Path("study")), wanted)

    done, wrong = crashes_of(disk, tmp_path / "crash", look, resume)

    report(f"tune: {done}")
    assert wrong == []


# Data and results


def test_a_decoded_dataset_is_whole_or_absent(source, tmp_path, report):
    place = tmp_path / "recorded"
    place.mkdir()
    data, disk = Data(source=str(source), size=8), RecordingDisk(place)
    with disk.mounted():
        store = prepare(data, place)
        disk.mark(1)
    path = store.path.relative_to(place).as_posix()
    wanted = {f"{path}/{file.name}": file.read_bytes() for file in store.path.iterdir()}

    def look(files, done):
        assert not done or path in files
        assert path not in files or files.items() >= wanted.items()

    def resume(folder):
        assert prepare(data, folder).images.tobytes() == store.images.tobytes()
        assert left_over(folder) == []

    done, wrong = crashes_of(disk, tmp_path / "crash", look, resume)

    report(f"data: {done}")
    assert wrong == []


@pytest.mark.parametrize("count", [3, 40])
def test_an_unpacked_archive_is_whole_or_absent(count, tmp_path, report):
    place = tmp_path / "recorded"
    place.mkdir()
    wanted = {f"out/{index % 2}/{index}.txt": f"file {index}".encode() for index in range(count)}
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for name, text in wanted.items():
            archive.writestr(name.removeprefix("out/"), text)
    disk = RecordingDisk(place)
    with disk.mounted():
        unpack(tmp_path / "a.zip", place / "out")
        disk.mark(1)

    def look(files, done):
        assert not done or "out" in files
        assert "out" not in files or files.items() >= wanted.items()

    def resume(folder):
        unpack(tmp_path / "a.zip", folder / "out")
        assert {f"out/{path.relative_to(folder / 'out').as_posix()}" for path in folder.rglob("*.txt")} == set(wanted)
        assert left_over(folder) == []

    done, wrong = crashes_of(disk, tmp_path / "crash", look, resume)

    report(f"an archive of {count} files: {done}")
    assert wrong == []


def test_a_score_is_added_or_not(source, tmp_path, monkeypatch, report):
    place = tmp_path / "recorded"
    place.mkdir()
    monkeypatch.chdir(place)
    assert tiny.run(*tiny.train(source, "--out", "run"))[0] == 0
    assert tiny.run("score", "run")[0] == 0
    first = Path("run/scores.jsonl").read_bytes()
    disk = RecordingDisk(place)
    with disk.mounted():
        assert tiny.run("score", "run")[0] == 0
        disk.mark(1)

    def look(files, done):
        assert files["run/scores.jsonl"] in ([] if done else [first]) + [first + first]

    def resume(folder):
        monkeypatch.chdir(folder)
        before = Path("run/scores.jsonl").read_bytes()
        assert tiny.run("score", "run")[0] == 0
        assert Path("run/scores.jsonl").read_bytes() == before + first

    done, wrong = crashes_of(disk, tmp_path / "crash", look, resume)

    report(f"score: {done}")
    assert wrong == []


# The replay itself


def test_the_replay_of_all_operations_is_what_is_on_the_disk(source, tmp_path, monkeypatch):
    place = tmp_path / "recorded"
    place.mkdir()
    monkeypatch.chdir(place)
    disk = RecordingDisk(place)
    with disk.mounted():
        assert tiny.run(*tiny.tune(source, "--out", "study"))[0] == 0
        assert tiny.run("study", "report", "study")[0] == 0
        shutil.rmtree("study/report")

    found = {
        path.relative_to(place).as_posix(): None if path.is_dir() else path.read_bytes() for path in place.rglob("*")
    }
    assert disk.after_kill(len(disk.events)) == found


def test_a_power_loss_loses_what_is_not_synced_and_nothing_else(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "old").write_bytes(b"old")
    disk = RecordingDisk(tmp_path / "a")
    with disk.mounted():
        with open(tmp_path / "a" / "new", "wb") as file:  # noqa: PTH123  as any code may do
            file.write(b"data")
        (tmp_path / "a" / "old").replace(tmp_path / "a" / "renamed")

    draw = random.Random(0)
    seen = [disk.after_power_loss(len(disk.events), draw) for _ in range(300)]

    assert {frozenset(one) for one in seen} == {
        frozenset(names) for names in (["old"], ["old", "new"], ["new", "renamed"])
    }
    assert {one["new"] for one in seen if "new" in one} == {b"", b"da", b"data", bytes(4)}
    with disk.mounted():
        for path in (tmp_path / "a" / "new", tmp_path / "a"):
            number = os.open(path, os.O_RDONLY)
            os.fsync(number)
            os.close(number)
    seen = [disk.after_power_loss(len(disk.events), draw) for _ in range(50)]
    assert all(one == {"new": b"data", "renamed": b"old"} for one in seen)
