from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap

import numpy as np
import pytest
from gantool.batches import ImageSpec
from gantool.data.store import Item, build_store, open_store
from gantool.errors import DataError, ResourceError

posix = pytest.mark.skipif(os.name == "nt", reason="signals and limits of POSIX")
SPEC = ImageSpec(3, 4, 5, ("cat", "dog"))
ABOUT = {"source": "pets"}


def pixels(count=6, spec=SPEC):
    return np.random.default_rng(0).integers(0, 256, (count, *spec.shape)).astype(np.uint8)


def items(images, bad=()):
    for index, image in enumerate(images):
        yield Item(f"{index}.png", index % 2, "truncated" if index in bad else image)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_what_goes_in_comes_out(tmp_path):
    images = pixels()
    built = build_store(tmp_path / "deep" / "pets", items(images), SPEC, ABOUT)
    opened = open_store(tmp_path / "deep" / "pets")

    for store in (built, opened):
        assert len(store) == 6
        assert np.array_equal(store.images, images)
        assert store.images.dtype == np.uint8
        assert store.labels.tolist() == [0, 1, 0, 1, 0, 1]
        assert store.labels.dtype == np.int64
        assert store.spec == SPEC
        assert store.about["source"] == "pets"
        assert store.skipped == []
    assert names(tmp_path / "deep") == ["pets"]
    assert names(tmp_path / "deep" / "pets") == ["about.json", "images.u8", "labels.i64"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], "pets: no images in it; a source is a folder of images, or of folders of images"),
        (
            [Item("1.png", 0, "truncated")],
            "pets: 1 of 1 files cannot be read as images (1.png: truncated); mend or remove them",
        ),
        (
            [Item("0.png", 0, pixels()[0]), Item("1.png", 1, "empty file"), Item("2.png", 1, "truncated")],
            "pets: 2 of 3 files cannot be read as images (1.png: empty file); mend or remove them",
        ),
        (
            [Item("0.png", 0, pixels()[0])],
            "pets: no readable image of class 'dog'; choose others with data.classes",
        ),
        (
            [Item("0.png", 0, pixels()[0]), Item("1.png", 1, "truncated")],
            "pets: no readable image of class 'dog' (1.png: truncated); choose others with data.classes",
        ),
    ],
)
def test_a_dataset_that_would_train_to_nothing_is_refused(tmp_path, content, message):
    with pytest.raises(DataError) as caught:
        build_store(tmp_path / "a", iter(content), SPEC, ABOUT)

    assert str(caught.value) == message
    assert names(tmp_path) == []


@pytest.mark.parametrize("file", ["about.json", "images.u8", "labels.i64"])
@pytest.mark.parametrize("harm", ["gone", "cut", "empty"])
def test_a_damaged_store_is_none(tmp_path, file, harm):
    build_store(tmp_path / "a", items(pixels()), SPEC, ABOUT)
    path = tmp_path / "a" / file
    if harm == "gone":
        path.unlink()
    else:
        path.write_bytes(b"" if harm == "empty" else path.read_bytes()[:-8])

    assert open_store(tmp_path / "a") is None


def test_a_damaged_store_is_told_and_not_touched(tmp_path):
    build_store(tmp_path / "a", items(pixels()), SPEC, ABOUT)
    (tmp_path / "a" / "labels.i64").write_bytes(b"")

    message = r"a: the decoded dataset is damaged; delete this directory and run the command again$"
    with pytest.raises(DataError, match=message):
        build_store(tmp_path / "a", items(pixels()), SPEC, ABOUT)
    assert names(tmp_path / "a") == ["about.json", "images.u8", "labels.i64"]
    assert names(tmp_path) == ["a"]


def test_an_error_on_the_way_leaves_nothing(tmp_path):
    def broken():
        yield from items(pixels())
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_store(tmp_path / "a", broken(), SPEC, ABOUT)

    assert names(tmp_path) == []


def test_a_place_that_cannot_be_written_is_told(tmp_path):
    (tmp_path / "file").touch()

    with pytest.raises(ResourceError, match=r"cannot be written \("):
        build_store(tmp_path / "file" / "a", items(pixels()), SPEC, ABOUT)


@posix
def test_a_full_disk_is_told_and_leaves_nothing(tmp_path):
    script = """
        import resource, signal, sys
        from pathlib import Path
        import numpy as np
        from gantool.batches import ImageSpec
        from gantool.data.store import Item, build_store
        from gantool.errors import ResourceError

        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
        one = np.zeros((3, 40, 40), np.uint8)
        try:
            build_store(Path(sys.argv[1]), (Item("", 0, one) for _ in range(50)), ImageSpec(3, 40, 40), {"source": "x"})
        except ResourceError as error:
            print(error)
    """
    command = [sys.executable, "-c", textwrap.dedent(script), str(tmp_path / "a")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)

    assert done.stdout == f"{tmp_path / 'a'}: the disk is full; make room and start again, a run with --resume\n"
    assert names(tmp_path) == []


SLOW = """
    import sys, time
    from pathlib import Path
    import numpy as np
    from gantool.batches import ImageSpec
    from gantool.data.store import Item, build_store

    def items():
        for index in range(300):
            if index == 100:
                print("half", flush=True)
                sys.stdin.readline()
            yield Item(str(index), 0, np.full((1, 9, 9), index % 256, np.uint8))

    store = build_store(Path(sys.argv[1]), items(), ImageSpec(1, 9, 9), {"source": "x"})
    print(len(store), int(store.images[299, 0, 0, 0]), flush=True)
"""


def building(path):
    command = [sys.executable, "-c", textwrap.dedent(SLOW), str(path)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "half\n"
    return process


def test_two_processes_that_build_the_same_store_both_get_it(tmp_path):
    with building(tmp_path / "a") as first, building(tmp_path / "a") as second:
        assert len(names(tmp_path)) == 2  # aside, each its own
        for process in (first, second):
            process.stdin.write("go\n")
            process.stdin.flush()
        assert [process.stdout.read() for process in (first, second)] == ["300 43\n"] * 2
    assert (first.returncode, second.returncode) == (0, 0)
    assert names(tmp_path) == ["a"]
    assert len(open_store(tmp_path / "a")) == 300


@posix
def test_a_killed_build_leaves_nothing_that_is_taken_for_whole(tmp_path):
    with building(tmp_path / "a") as process:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()

    assert open_store(tmp_path / "a") is None
    assert names(tmp_path) == [f"a.part-{process.pid}"]
    assert len(build_store(tmp_path / "a", items(pixels()), SPEC, ABOUT)) == 6
    assert names(tmp_path) == ["a"]  # and what was left is swept


def test_the_about_file_is_readable_by_people(tmp_path):
    build_store(tmp_path / "a", items(pixels()), ImageSpec(3, 4, 5, ("달걀", "dog")), ABOUT | {"settings": {"rule": 1}})
    text = (tmp_path / "a" / "about.json").read_text(encoding="utf-8")

    assert "달걀" in text
    assert json.loads(text) == {
        "source": "pets", "settings": {"rule": 1}, "images": 6, "channels": 3, "height": 4, "width": 5,
        "classes": ["달걀", "dog"], "skipped": [],
    }  # fmt: skip
