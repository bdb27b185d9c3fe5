from __future__ import annotations

import hashlib
import io
import os
import pickle
import random
import re
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
import torch
from gantool import checkpoints
from gantool.errors import CheckpointError, ResourceError
from PIL import Image
from torch import nn

posix = pytest.mark.skipif(os.name == "nt", reason="signals and limits of POSIX")
HEAD = b"gantool checkpoint 1\n"
UNSAFE = re.compile(r"weights_only|pickle|arbitrary|unsafe|torch\.load", re.IGNORECASE)


def content():
    return {
        "model": {
            "weight": torch.arange(600.0).reshape(20, 30),
            "half": torch.ones(3).half(),
            "count": torch.tensor(5),
        },
        "position": {"epoch": 3, "best": float("inf"), "sums": {}},
        "classes": ["Egg", "개"],
        "pair": (1, 2.5),
        "none": None,
        "recipe": "name: x\n",
    }


def refusal(path):
    with pytest.raises(CheckpointError) as caught:
        checkpoints.load(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    assert not UNSAFE.search(message), message
    return message.removeprefix(f"{path}: ")


@pytest.fixture
def file(tmp_path):
    checkpoints.save(tmp_path / "last.pt", content())
    return tmp_path / "last.pt"


def test_what_is_saved_is_loaded(file):
    loaded, saved = checkpoints.load(file), content()

    weights, expected = loaded.pop("model"), saved.pop("model")
    assert loaded == saved
    assert all(
        torch.equal(weights[name], value) and weights[name].dtype == value.dtype for name, value in expected.items()
    )
    assert [path.name for path in file.parent.iterdir()] == ["last.pt"]


def test_a_file_is_a_line_a_hash_and_what_torch_writes(file):
    data = file.read_bytes()
    payload = data[len(HEAD) + 65 :]

    assert data.startswith(HEAD)
    assert data[len(HEAD) :][:65] == hashlib.sha256(payload).hexdigest().encode() + b"\n"
    assert torch.load(io.BytesIO(payload), weights_only=True)["classes"] == ["Egg", "개"]


def test_saving_takes_the_place_of_the_old_file(file):
    checkpoints.save(file, {"epoch": 9})

    assert checkpoints.load(file) == {"epoch": 9}


def test_tensors_are_loaded_where_they_are_wanted(file):
    assert checkpoints.load(file, torch.device("cpu"))["model"]["weight"].device.type == "cpu"
    assert checkpoints.load(file, "meta")["model"]["weight"].device.type == "meta"


def test_a_missing_file_is_told(tmp_path):
    assert refusal(tmp_path / "none.pt") == "no such checkpoint"


def test_a_folder_is_told(tmp_path):
    assert re.fullmatch(r"cannot be read \((Is a directory|Permission denied)\)", refusal(tmp_path))


def test_an_empty_file_is_told(file):
    file.write_bytes(b"")

    assert refusal(file) == "is empty; use another checkpoint of the run"


@pytest.mark.parametrize(
    "keep", [lambda size: size - 1, lambda size: size // 2, lambda size: 90, lambda size: 30, lambda size: 21]
)
def test_a_truncated_file_is_told(file, keep):
    data = file.read_bytes()
    file.write_bytes(data[: keep(len(data))])

    assert refusal(file) == "is damaged (its SHA-256 does not match); use another checkpoint of the run"


def test_a_file_cut_in_its_first_line_is_told(file):
    file.write_bytes(file.read_bytes()[:10])

    assert refusal(file) == "is not a gantool checkpoint; use another checkpoint of the run"


def test_any_flipped_bit_is_told(file):
    data = file.read_bytes()
    chosen = random.Random(0).sample(range(len(HEAD), len(data)), 50)
    for index in [
        len(HEAD),
        len(HEAD) + 63,
        len(data) - 1,
        data.index(torch.arange(600.0).numpy().tobytes()[:64]),
        *chosen,
    ]:
        if index == len(HEAD) + 64:
            continue  # the line's end after the hash
        damaged = bytearray(data)
        damaged[index] ^= 1 << (index % 8)
        file.write_bytes(damaged)

        assert refusal(file) == "is damaged (its SHA-256 does not match); use another checkpoint of the run"


def png():
    stream = io.BytesIO()
    Image.new("L", (20, 20)).save(stream, "PNG")
    return stream.getvalue()


class Bomb:
    """What a pickle of it runs when it is loaded creates a file."""

    def __init__(self, canary):
        self.canary = canary

    def __reduce__(self):
        return (Path.touch, (self.canary,))


def saved(value, **options):
    stream = io.BytesIO()
    torch.save(value, stream, **options)
    return stream.getvalue()


@pytest.mark.parametrize(
    "make",
    [
        lambda _: b"<!DOCTYPE html><html><body>404 Not Found</body></html>",
        lambda _: png(),
        lambda canary: pickle.dumps(Bomb(canary)),
        lambda canary: saved({"a": Bomb(canary)}),
        lambda canary: saved({"a": Bomb(canary)}, _use_new_zipfile_serialization=False),
        lambda _: saved(nn.Linear(2, 2)),
        lambda _: saved({"a": torch.ones(3)}),
        lambda _: os.urandom(1000),
    ],
    ids=["html", "png", "pickle", "torch", "old torch", "module", "state", "noise"],
)
def test_a_foreign_file_is_told_and_runs_nothing(tmp_path, make):
    canary = tmp_path / "canary"
    (tmp_path / "last.pt").write_bytes(make(canary))

    assert refusal(tmp_path / "last.pt") == "is not a gantool checkpoint; use another checkpoint of the run"
    assert not canary.exists()


@pytest.mark.parametrize(
    "make",
    [
        lambda canary: saved({"a": Bomb(canary)}),
        lambda canary: saved({"a": Bomb(canary)}, _use_new_zipfile_serialization=False),
        lambda canary: pickle.dumps(Bomb(canary)),
        lambda _: saved(nn.Linear(2, 2)),
        lambda _: saved({"a": Path("x")}),
        lambda _: saved({"a": torch.ones(100)})[:-200],
        lambda _: b"",
        lambda _: b"PK\x03\x04" + bytes(100),
        lambda _: b"<html>",
        lambda _: png(),
    ],
    ids=["bomb", "old bomb", "pickle", "module", "path", "cut", "empty", "zip", "html", "png"],
)
def test_a_file_with_the_right_head_can_hold_no_code(tmp_path, make):
    canary = tmp_path / "canary"
    payload = make(canary)
    (tmp_path / "last.pt").write_bytes(HEAD + hashlib.sha256(payload).hexdigest().encode() + b"\n" + payload)

    assert refusal(tmp_path / "last.pt") == "holds something that is not tensors; use another checkpoint of the run"
    assert not canary.exists()


def test_a_file_of_a_newer_version_is_told(file):
    file.write_bytes(file.read_bytes().replace(b"checkpoint 1", b"checkpoint 2", 1))

    assert refusal(file) == "written by a newer gantool; upgrade with: pip install -U gantool"


def test_what_torch_would_refuse_to_load_is_not_kept_when_saving_fails(file):
    before = file.read_bytes()

    with pytest.raises(Exception, match="pickle"):
        checkpoints.save(file, {"a": lambda: None})

    assert file.read_bytes() == before
    assert [path.name for path in file.parent.iterdir()] == ["last.pt"]


@posix
def test_a_disk_that_fills_up_keeps_the_old_checkpoint(file):
    before = file.read_bytes()
    script = """
        import resource, signal, sys, torch
        from pathlib import Path
        from gantool import checkpoints
        from gantool.errors import ResourceError

        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        for limit in (50, 5000, 300_000):
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
            try:
                checkpoints.save(Path(sys.argv[1]), {"a": torch.ones(200_000)})
            except ResourceError as error:
                print(error)
    """
    command = [sys.executable, "-c", textwrap.dedent(script), str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)

    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [f"{file}: the disk is full; make room and start again, a run with --resume"] * 3
    assert file.read_bytes() == before
    assert [path.name for path in file.parent.iterdir()] == ["last.pt"]


def test_a_folder_that_is_gone_is_told(tmp_path):
    with pytest.raises(ResourceError, match=r"last.pt: cannot be written \(No such file or directory\)"):
        checkpoints.save(tmp_path / "gone" / "last.pt", {})


@posix
def test_a_process_killed_while_saving_leaves_the_newest_checkpoint_whole(tmp_path):
    # 30 processes save number after number, and tell each one that is safe; each is killed at a random moment.
    path = tmp_path / "last.pt"
    script = """
        import os, sys, time, torch
        from pathlib import Path
        from gantool import checkpoints

        path, told = Path(sys.argv[1]), Path(sys.argv[2])
        torch.set_num_threads(1)
        weights = torch.ones(100_000)
        for line in sys.stdin:
            reader, writer = os.pipe()
            child = os.fork()
            if child == 0:
                number = int(line)
                while True:
                    number += 1
                    checkpoints.save(path, {"number": number, "weights": weights * number})
                    os.write(writer, b"%d\\n" % number)
            os.close(writer)
            os.read(reader, 20)  # the first one is safe
            sys.stdout.write(f"{child} {reader}\\n")
            sys.stdout.flush()
            os.waitpid(child, 0)
            numbers = b""
            while part := os.read(reader, 1 << 16):
                numbers += part
            os.close(reader)
            sys.stdout.write((numbers.split() or [b"0"])[-1].decode() + "\\n")
            sys.stdout.flush()
    """
    chance = random.Random(7)
    number = 0
    command = [sys.executable, "-W", "ignore", "-c", textwrap.dedent(script), str(path), str(tmp_path / "told")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as saving:
        for _ in range(30):
            saving.stdin.write(f"{number}\n")
            saving.stdin.flush()
            child = int(saving.stdout.readline().split()[0])
            time.sleep(chance.uniform(0, 0.03))
            os.kill(child, signal.SIGKILL)
            told = int(saving.stdout.readline())

            found = checkpoints.load(path)
            assert found["number"] >= max(told, number + 1)
            assert torch.equal(found["weights"], torch.full((100_000,), float(found["number"])))
            number = found["number"]
        saving.stdin.close()
        assert saving.wait() == 0
    assert number > 30
