"""Every operation on files of a short command fails: one line, exit code 7, and nothing is lost or left over.

By default a part of the operations is chosen by a seed. `nox -s crash` takes all of them.
"""

from __future__ import annotations

import errno
import os
import random
import shutil
from collections import Counter
from pathlib import Path

import pytest
from gantool.errors import ResourceError

import tiny
from disks import FailingDisk, left_over

ALL = bool(os.environ.get("GANTOOL_CRASH"))  # set by `nox -s crash`
NUMBERS = (errno.ENOSPC, errno.EIO, errno.EACCES, errno.EMFILE, errno.EFBIG)
FAULTS = {"train": 16, "resume": 10, "tune": 5, "tune elsewhere": 3, "report": 3}  # of a command by default
FEWER = 8  # of the other commands


class Command:
    """A command, the folder that it needs, the one that holds its result, and how it is repeated after a fault."""

    def __init__(self, words, *, again=None, needs=None, result=None):
        self.words, self.again, self.needs = words, again or words, needs
        self.result = Path(result or needs or "out")
        self.resumes = words[0] in ("train", "tune")

    def fresh(self, place, folder):
        """Make a folder for one fault."""
        folder.mkdir()
        if self.needs:
            shutil.copytree(place / self.needs, folder / self.needs)
        return folder


def commands(source):
    """Return the commands by name; all of them read `source`, or what the fixture `place` made of it."""
    train = tiny.train(source, "--out", "out", train__keep_every=2)
    longer = ["train", "run", "--resume", "--set", "train.epochs=3"]
    return {
        "train": Command(train, again=[*train, "--resume"]),
        "resume": Command(longer, needs="run"),
        "tune": Command(tiny.tune(source, "--out", "out")),
        "tune elsewhere": Command(tiny.tune(source, "--out", "out", tune__storage="sqlite:///../elsewhere.db")),
        "sample": Command(["sample", "run", "-o", "out/deep/grid.png"], needs="run", result="out"),
        "sample a folder": Command(["sample", "run", "--seeds", "0-2", "-o", "out/deep"], needs="run", result="out"),
        "animate": Command(["animate", "run", "-o", "out/run.gif"], needs="run", result="out"),
        "animate as a film": Command(["animate", "run", "-o", "out/run.mp4"], needs="run", result="out"),
        "score": Command(["score", "run"], needs="run"),
        "data": Command(["data", "show", source, "-o", "out/sheet.png", "--data-dir", "out/data"]),
        "report": Command(["study", "report", "study"], needs="study"),
        "export": Command(["study", "export", "study", "-o", "out/a.yaml"], needs="study", result="out"),
    }


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Images, and a run and a study of them that no test changes."""
    folder = tmp_path_factory.mktemp("faults")
    with tiny.workplace(folder, train__keep_every=2):
        yield folder


def chosen(name, count):
    """Return the faults to try: the operation, the error number, and whether all later operations fail too."""
    if not ALL:
        draw = random.Random(name)
        some = draw.sample(range(1, count + 1), min(count, FAULTS.get(name, FEWER)))
        return [(at, draw.choice(NUMBERS), draw.random() < 0.3) for at in some]
    kinds = [*((number, False) for number in NUMBERS), (errno.ENOSPC, True)]
    every = [(at, *kind) for at in range(1, count + 1) for kind in kinds]
    return every[:: len(kinds) - 1] if name.startswith("tune") else every  # a search takes a second: one of five


def tree(folder):
    """Return every file of a folder with its content, and every folder; not what the system locks."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in Path(folder).rglob("*")
        if not (path.name.startswith(".") and path.name.endswith("lock"))
    }


def result(path):
    return tiny.content(path) if path.exists() else {}


def wrongs(command, wanted, failing):
    """Run a command on a failing disk and then again; return its exit code and everything that is wrong."""
    before = tree(".")
    with failing.mounted():
        code, text = tiny.run(*command.words)
    lines, found = tiny.errors(text), []
    if not failing.failed:
        found.append("no fault")
    if code not in (0, ResourceError.exit_code) or len(lines) != (code != 0):
        found.append(f"ended with {code}: {lines} {text[-300:]}")
    if left := left_over("."):
        found.append(f"left {left}")
    odd = {name for name, content in tree(".").items() if before.get(name, ...) != content} | before.keys() - tree(".")
    made = {"out", "out/data"} if command.words[0] == "data" else set()  # decoded data stay
    if code and not command.resumes and {name for name in odd - made if not name.startswith("out/data/")}:
        found.append(f"changed {odd}")
    if code and (again := tiny.run(*command.again))[0]:
        found.append(f"cannot be repeated: {again}")
    now = result(command.result)
    if now != wanted:
        found.append(f"has another result: {[key for key in wanted | now if now.get(key) != wanted.get(key)]}")
    return code, found


@pytest.mark.parametrize("name", commands(""))
def test_a_fault_of_the_disk_loses_nothing_and_leaves_nothing(name, place, tmp_path, monkeypatch, capsys):
    command, folder = commands(str(place / "photos"))[name], tmp_path / "a"
    monkeypatch.chdir(command.fresh(place, folder))
    disk = FailingDisk(folder)
    with disk.mounted():
        assert tiny.run(*command.words)[0] == 0
    wanted, codes, wrong = result(command.result), Counter(), []
    for at, number, forever in chosen(name, disk.count):
        monkeypatch.chdir(tmp_path)
        shutil.rmtree(folder)
        monkeypatch.chdir(command.fresh(place, folder))
        failing = FailingDisk(folder, at, number, forever=forever)
        code, found = wrongs(command, wanted, failing)
        codes[code] += 1
        wrong += [(at, errno.errorcode[number], forever, failing.failed[:1], one) for one in found]
    if ALL:
        with capsys.disabled():
            print(f"\n{name}: {disk.count} operations, {codes.total()} faults: {dict(codes)}; {len(wrong)} wrong")
    assert wrong == []
