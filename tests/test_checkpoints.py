from __future__ import annotations

import hashlib
import io
import json
import os
import pickle
import random
import re
import signal
import subprocess
import sys
import textwrap
import time
import zipfile
from pathlib import Path

import pytest
import safetensors.torch
import torch
from gantool import checkpoints
from gantool.errors import CheckpointError, ResourceError
from PIL import Image
from torch import nn

from old import packed, save_old

posix = pytest.mark.skipif(os.name == "nt", reason="signals and limits of POSIX")
HEAD = b"gantool checkpoint 2\n"
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
        "pair": [1, 0.1],
        "none": None,
        "empty": torch.zeros(0, 3),
        "recipe": "name: x\n",
    }


def refusal(path, upgrade=None):
    with pytest.raises(CheckpointError) as caught:
        checkpoints.load(path, upgrade)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    assert not UNSAFE.search(message), message
    return message.removeprefix(f"{path}: ")


@pytest.fixture
def file(tmp_path):
    checkpoints.save(tmp_path / "last.pt", content())
    return tmp_path / "last.pt"


def test_saved_content_is_loaded_and_the_file_is_a_line_a_hash_and_a_file_of_safetensors(file, tmp_path):
    loaded, saved, data = checkpoints.load(file), content(), file.read_bytes()

    weights, expected = loaded.pop("model"), saved.pop("model")
    assert torch.equal(loaded.pop("empty"), saved.pop("empty"))
    assert loaded == saved
    assert all(torch.equal(weights[name], one) and weights[name].dtype == one.dtype for name, one in expected.items())
    payload = data[len(HEAD) + 65 :]
    assert data[: len(HEAD) + 65] == HEAD + hashlib.sha256(payload).hexdigest().encode() + b"\n"
    (tmp_path / "plain.safetensors").write_bytes(payload)
    with safetensors.safe_open(tmp_path / "plain.safetensors", "pt") as plain:
        assert set(plain.keys()) == {"model/weight", "model/half", "model/count", "empty"}
        assert json.loads(plain.metadata()["values"])["classes"] == ["Egg", "개"]


def test_tensors_that_share_memory_or_are_views_are_saved_as_they_are(tmp_path):
    weight = torch.arange(12.0).reshape(3, 4)
    state = {"a": weight, "b": weight, "c": weight.T, "d": weight[:, 1:3], "e": torch.ones(1).expand(2, 2)}
    checkpoints.save(tmp_path / "last.pt", state)
    found = checkpoints.load(tmp_path / "last.pt")
    assert all(torch.equal(found[name], value) for name, value in state.items())


DAMAGED = "is damaged (its SHA-256 does not match); use another checkpoint of the run"
FORGED = "holds something that gantool did not write; use another checkpoint of the run"
FOREIGN = "is not a gantool checkpoint; use another checkpoint of the run"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda _: b"", "is empty; use another checkpoint of the run"),
        (lambda data: data[:10], FOREIGN),
        *((lambda data, size=size: data[:size], DAMAGED) for size in (21, 30, 90, 2000, -1)),
        (
            lambda data: data.replace(b"checkpoint 2", b"checkpoint 3", 1),
            "written by a newer gantool; upgrade with: pip install -U gantool",
        ),
    ],
)
def test_a_damaged_or_newer_file_is_refused(file, change, message):
    file.write_bytes(change(file.read_bytes()))

    assert refusal(file) == message


def test_a_file_that_is_missing_or_a_directory_is_reported(tmp_path):
    assert refusal(tmp_path / "none.pt") == "no such checkpoint"
    assert refusal(tmp_path) == "is not a file; use another checkpoint of the run"
    with pytest.raises(ResourceError, match="gone: no longer exists; it was deleted or moved meanwhile"):
        checkpoints.save(tmp_path / "gone" / "last.pt", {})


def test_any_flipped_bit_is_detected(file):
    data = file.read_bytes()
    tensor = data.index(torch.arange(600.0).numpy().tobytes()[:64])
    chosen = random.Random(0).sample(range(len(HEAD) + 65, len(data)), 50)
    for index in (len(HEAD), len(HEAD) + 63, len(data) - 1, tensor, *chosen):
        damaged = bytearray(data)
        damaged[index] ^= 1 << (index % 8)
        file.write_bytes(damaged)

        assert refusal(file) == DAMAGED


@posix
def test_a_pipe_a_device_and_a_link_elsewhere_are_refused_at_once(file, tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    os.mkfifo(folder / "pipe.pt")
    (folder / "zero.pt").symlink_to("/dev/zero")
    (folder / "out.pt").symlink_to(file)
    (folder / "own.pt").write_bytes(file.read_bytes())
    (folder / "in.pt").symlink_to("own.pt")

    for name, what in (("pipe", "is not a file"), ("zero", "is not a file"), ("out", "is a link out of its folder")):
        assert refusal(folder / f"{name}.pt") == f"{what}; use another checkpoint of the run"
    assert checkpoints.load(folder / "in.pt")["position"]["epoch"] == 3


def test_a_file_too_large_for_the_memory_is_reported(file, monkeypatch):
    class Large(io.BytesIO):
        def read(self, size=-1):
            if size < 0:
                raise MemoryError
            return super().read(size)

    data = file.read_bytes()
    monkeypatch.setattr(Path, "open", lambda path, mode: Large(data))
    assert refusal(file) == "cannot be read (out of memory)"


def forged(tensors, **metadata):
    """A file of safetensors behind a right checksum."""
    payload = safetensors.torch.save(tensors, metadata)
    return HEAD + hashlib.sha256(payload).hexdigest().encode() + b"\n" + payload


@pytest.mark.parametrize(
    "data",
    [
        forged({"a": torch.ones(1)}),
        forged({"a": torch.ones(1)}, other="{}"),
        forged({"a": torch.ones(1)}, values="{"),
        forged({"a": torch.ones(1)}, values="[" * 100_000),
        forged({"a": torch.ones(1)}, values="[1]"),
        forged({}, values="[1]"),
        forged({"a": torch.ones(1)}, values='{"a": 1}'),
        forged({"a/b": torch.ones(1)}, values="{}"),
        forged({"a/b": torch.ones(1)}, values='{"a": [1]}'),
        forged({"": torch.ones(1), "/": torch.ones(1)}, values="{}"),
        forged({}, values=f'{{"a": {"9" * 10_000}}}'),
    ],
    ids=lambda data: f"{len(data)} bytes",
)
def test_a_forged_document_is_refused(data, tmp_path):
    (tmp_path / "last.pt").write_bytes(data)
    assert refusal(tmp_path / "last.pt") == FORGED


def test_content_that_is_neither_tensor_nor_json_keeps_the_old_file(file):
    before = file.read_bytes()

    with pytest.raises(TypeError, match="not JSON serializable"):
        checkpoints.save(file, {"a": lambda: None})

    assert file.read_bytes() == before
    assert [path.name for path in file.parent.iterdir()] == ["last.pt"]


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


def png(_):
    stream = io.BytesIO()
    Image.new("L", (20, 20)).save(stream, "PNG")
    return stream.getvalue()


def compressed(_):
    """A megabyte of zeros in a kilobyte, as torch.save does not write them."""
    stream, archive = io.BytesIO(), io.BytesIO(saved({"a": torch.zeros(250_000)}))
    with zipfile.ZipFile(archive) as old, zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as new:
        for entry in old.infolist():
            new.writestr(entry.filename, old.read(entry))
    return stream.getvalue()


def newest(payload):
    return HEAD + hashlib.sha256(payload).hexdigest().encode() + b"\n" + payload


@pytest.mark.parametrize(("head", "message"), [(newest, "FORGED"), (packed, "FORGED"), (bytes, "FOREIGN")])
@pytest.mark.parametrize(
    "make",
    [
        lambda canary: saved({"a": Bomb(canary)}),
        lambda canary: saved({"a": Bomb(canary)}, _use_new_zipfile_serialization=False),
        lambda canary: pickle.dumps(Bomb(canary)),
        lambda _: saved(nn.Linear(2, 2)),
        lambda _: saved({"a": Path("x")}),
        lambda _: saved({"a": torch.ones(100)})[:-200],
        compressed,
        lambda _: saved({"a": torch.ones(2).to_sparse()}),
        lambda _: saved({"a": {"b": torch.ones(2, device="meta")}}),
        lambda _: b"PK\x03\x04" + bytes(100),
        lambda _: b"<!DOCTYPE html><html><body>404 Not Found</body></html>",
        png,
        lambda _: os.urandom(1000),
    ],
    ids=[
        *("bomb", "old bomb", "pickle", "module", "path", "cut", "compressed", "sparse", "meta"),
        *("zip", "html", "png", "noise"),
    ],
)
def test_a_foreign_file_is_refused_and_runs_no_code(tmp_path, make, head, message):
    canary, file = tmp_path / "canary", tmp_path / "last.pt"
    file.write_bytes(head(make(canary)))

    assert refusal(file, dict) == globals()[message]
    assert not canary.exists()


def test_a_file_of_version_1_is_read_only_where_it_is_asked_for(tmp_path):
    save_old(tmp_path / "last.pt", {"a": torch.ones(3), "b": (1, 2)})

    assert refusal(tmp_path / "last.pt") == "written by an older gantool; use another checkpoint of the run"
    found = checkpoints.load(tmp_path / "last.pt", lambda content: {**content, "c": 3})
    assert (found["a"].tolist(), found["b"], found["c"]) == ([1, 1, 1], (1, 2), 3)
    assert refusal(tmp_path / "last.pt", lambda content: content["lacking"]) == FORGED


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
