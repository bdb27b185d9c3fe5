"""Two processes start the same command, or one that fails, at the same moment: nothing is lost, and one line says why.

By default a few pairs of each command start. `nox -s crash` starts a hundred.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from pathlib import Path

import pytest

import tiny
from disks import left_over
from processes import child

PAIRS = 100 if os.environ.get("GANTOOL_CRASH") else 2
WORK = """
    import json, os, sys
    sys.path.insert(0, sys.argv[1])
    import gantool.tune.search, gantool.inference.scoring, gantool.inference.compare
    import tiny

    print("ready", flush=True)
    for line in sys.stdin:
        folder, words, data = json.loads(line)
        os.chdir(folder)
        os.environ["GANTOOL_DATA"] = data
        print(json.dumps(tiny.run(*words)), flush=True)
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Images, and a run and a study of them that no test changes."""
    folder = tmp_path_factory.mktemp("pairs")
    with tiny.workplace(folder):
        yield folder


@pytest.fixture(scope="module")
def pair():
    """Two processes that wait for commands; call it to run one in each at once."""
    with contextlib.ExitStack() as stack:
        workers = [stack.enter_context(child(WORK, Path(tiny.__file__).parent)) for _ in range(2)]
        assert [worker.stdout.readline() for worker in workers] == ["ready\n"] * 2

        def both(folder, commands, data):
            for worker, words in zip(workers, commands, strict=True):
                worker.stdin.write(json.dumps([str(folder), list(map(str, words)), str(data)]) + "\n")
            for worker in workers:
                worker.stdin.flush()
            return [json.loads(worker.stdout.readline()) for worker in workers]

        yield both
        for worker in workers:
            worker.stdin.close()


def repeated(pair, place, tmp_path, commands, check, needs=(), data=None):
    """Start both commands many times, each time in a new folder; return everything that is wrong."""
    wrong = []
    for _ in range(PAIRS):
        folder = tmp_path / "both"
        folder.mkdir()
        for name in needs:
            shutil.copytree(place / name, folder / name)
        ended = pair(folder, commands, folder / data if data else place / "data")
        try:
            for code, text in ended:
                assert isinstance(code, int), code
                assert len(tiny.errors(text)) == (code != 0), text
            assert left_over(folder) == []
            check(folder, [code for code, _ in ended], " ".join(text for _, text in ended))
        except Exception as error:  # of any kind: it is what is looked for
            wrong.append((ended, f"{type(error).__name__}: {error}"[:500]))
        except AssertionError as error:
            wrong.append((ended, str(error)[:500]))
        shutil.rmtree(folder)
    return wrong


REFUSED = ("in use by", "already holds something", "already exists")


def one_or_both(codes, text):
    """Both ended well, or one of them and the other was refused."""
    assert sorted(codes) in ([0, 0], [0, 2]), (codes, text)
    assert codes == [0, 0] or any(words in text for words in REFUSED)


@pytest.mark.parametrize("resumes", [False, True])
def test_two_trainings_in_one_directory(resumes, pair, place, tmp_path):
    words = tiny.train(place / "photos", "--out", "run", *["--resume"] * resumes)

    def check(folder, codes, text):
        one_or_both(codes, text)
        assert tiny.content(folder / "run") == tiny.content(place / "run")

    assert repeated(pair, place, tmp_path, [words, words], check) == []


def test_two_trainings_that_choose_their_directories(pair, place, tmp_path):
    words = tiny.train(place / "photos")

    def check(folder, codes, _):
        assert codes == [0, 0]
        assert sorted(path.name for path in (folder / "runs").iterdir()) == ["gan14-001", "gan14-002"]
        for name in ("gan14-001", "gan14-002"):
            assert tiny.content(folder / "runs" / name) == tiny.content(place / "run")

    assert repeated(pair, place, tmp_path, [words, words], check) == []


def test_two_searches_in_one_directory(pair, place, tmp_path):
    words = tiny.tune(place / "photos", "--out", "study")

    def check(folder, codes, text):
        one_or_both(codes, text)
        assert tiny.content(folder / "study") == tiny.content(place / "study")

    assert repeated(pair, place, tmp_path, [words, words], check) == []


@pytest.mark.parametrize("kind", ["train", "tune"])
def test_one_that_fails_does_not_take_the_directory_of_the_other(kind, pair, place, tmp_path):
    make, name = {"train": (tiny.train, "run"), "tune": (tiny.tune, "study")}[kind]
    (tmp_path / "empty").mkdir()
    commands = [make(tmp_path / "empty", "--out", name), make(place / "photos", "--out", name)]

    def check(folder, codes, _):
        assert codes[0] in (2, 3)
        assert codes[1] in (0, 2)
        if codes[1] == 0:
            assert tiny.content(folder / name) == tiny.content(place / name)
        else:
            assert not (folder / name).exists()

    assert repeated(pair, place, tmp_path, commands, check) == []


@pytest.mark.parametrize(
    ("words", "file"),
    [
        (["sample", "run", "-o", "out/a.png"], "out/a.png"),
        (["sample", "run", "--seeds", "0-1", "-o", "out"], "out/seed-000001.png"),
        (["animate", "run", "-o", "out/a.gif"], "out/a.gif"),
        (["nearest", "run"], "run/nearest.png"),
        (["compare", "run", "run", "-o", "a.png"], "a.png"),
        (["study", "export", "study", "-o", "out/a.yaml"], "out/a.yaml"),
        (["study", "report", "study"], "study/report/index.html"),
    ],
)
def test_two_that_write_one_file(words, file, pair, place, tmp_path, monkeypatch):
    alone = tmp_path / "alone"
    for name in ("run", "study"):
        shutil.copytree(place / name, alone / name)
    monkeypatch.chdir(alone)
    assert tiny.run(*words)[0] == 0
    wanted = (alone / file).read_bytes()

    def check(folder, codes, text):
        one_or_both(codes, text)
        assert (folder / file).read_bytes() == wanted

    assert repeated(pair, place, tmp_path, [words, words], check, needs=("run", "study")) == []


def test_two_scores_of_one_run_are_both_kept(pair, place, tmp_path):
    def check(folder, codes, _):
        assert codes == [0, 0]
        assert len((folder / "run/scores.jsonl").read_bytes().splitlines()) == 2

    assert repeated(pair, place, tmp_path, [["score", "run"]] * 2, check, needs=("run",)) == []


def test_two_that_decode_the_same_images(pair, place, tmp_path):
    def check(folder, codes, _):
        assert codes == [0, 0]
        (store,) = (folder / "data/stores").glob("[!.]*")
        assert (store / "labels.i64").stat().st_size == 32 * 8
        assert [path.name for path in (folder / "data/stores").glob(".*.part")] == []

    commands = [["data", "show", str(place / "photos"), "-o", f"{name}.png"] for name in "ab"]
    assert repeated(pair, place, tmp_path, commands, check, data="data") == []
