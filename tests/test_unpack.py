from __future__ import annotations

import gzip
import io
import json
import os
import re
import signal
import stat
import subprocess
import sys
import tarfile
import time
import unicodedata
import zipfile
import zlib
from pathlib import Path

import pytest

from gantool.data import archive as module
from gantool.data.archive import Limits, complete, unpack
from gantool.errors import DataError, ResourceError

FILES = {"cats/1.png": b"one", "cats/2.png": b"two" * 1000, "개/삼.png": b"", "top.txt": b"text"}
KINDS = ["zip", "tar", "tar.gz", "tar.bz2", "tar.xz"]
posix = pytest.mark.skipif(os.name == "nt", reason="signals and modes of POSIX")


def make_zip(path, members, method=zipfile.ZIP_DEFLATED):
    """Write (name, bytes) pairs as they are; a name may be a ZipInfo."""
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, body in members:
            archive.writestr(name, body)
    return path


def make_tar(path, members, mode="w:"):
    """Write (name, bytes) pairs as they are; a name may be a TarInfo."""
    with tarfile.open(path, mode, format=tarfile.PAX_FORMAT) as archive:
        for name, body in members:
            info = name if isinstance(name, tarfile.TarInfo) else tarfile.TarInfo(name)
            info.size = len(body)
            if not isinstance(name, tarfile.TarInfo) and name.endswith("/"):
                info.type = tarfile.DIRTYPE
            archive.addfile(info, io.BytesIO(body))
    return path


def make(path, members):
    kind = path.name.partition(".")[2]
    if kind == "zip":
        return make_zip(path, members)
    return make_tar(path, members, f"w:{kind.removeprefix('tar').removeprefix('.')}")


def found(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != ".complete"
    }


def refused(archive, message, **options):
    """Unpack, expect a DataError that matches, and that nothing is left or written anywhere."""
    out = archive.parent / "out"
    before = {path for path in archive.parent.rglob("*") if path != out}
    with pytest.raises(DataError, match=message) as caught:
        unpack(archive, out / "data", **options)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 3
    assert {path for path in archive.parent.rglob("*") if path != out} == before
    assert str(caught.value).startswith(f"{archive}: ")


# --- what goes well ---


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_unpacked_whole_and_marked(tmp_path, kind):
    archive = make(tmp_path / f"a.{kind}", FILES.items())
    archive.rename(tmp_path / "name.says.nothing")
    folder = unpack(tmp_path / "name.says.nothing", tmp_path / "new" / "data")
    assert folder == tmp_path / "new" / "data"
    assert found(folder) == FILES
    assert complete(folder)
    assert json.loads((folder / ".complete").read_text()) == {"files": 4, "bytes": 3007}
    assert list(folder.parent.iterdir()) == [folder]


def test_a_complete_folder_is_left_as_it_is(tmp_path):
    folder = unpack(make_zip(tmp_path / "a.zip", FILES.items()), tmp_path / "data")
    (folder / "top.txt").unlink()
    assert unpack(tmp_path / "is not looked at", folder) == folder
    assert not (folder / "top.txt").exists()


def test_another_folder_is_not_touched(tmp_path):
    (tmp_path / "data").mkdir()
    message = r"data: is already there and was not unpacked by gantool; move it away$"
    with pytest.raises(DataError, match=message):
        unpack(make_zip(tmp_path / "a.zip", FILES.items()), tmp_path / "data")
    assert list((tmp_path / "data").iterdir()) == []


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"files": 1}', "\0"])
def test_only_a_whole_mark_makes_a_folder_complete(tmp_path, text):
    (tmp_path / ".complete").write_text(text)
    assert not complete(tmp_path)
    assert not complete(tmp_path / "missing")


def test_folders_may_be_named_twice_and_be_empty(tmp_path):
    names = ["./", "a/", "a/", "a/b/", "a//b/./c.txt"]
    archive = make_tar(tmp_path / "a.tar", [(name, b"") for name in names])
    folder = unpack(archive, tmp_path / "data")
    assert (folder / "a" / "b" / "c.txt").is_file()


def test_what_desktops_add_is_skipped(tmp_path):
    junk = ["__MACOSX/", "__MACOSX/._1.png", "a/.DS_Store", ".DS_Store", "a/Thumbs.db", "../.DS_Store"]
    members = [(name, b"junk") for name in junk] + [("a/1.png", b"1")]
    folder = unpack(make_zip(tmp_path / "a.zip", members), tmp_path / "data")
    assert found(folder) == {"a/1.png": b"1"}
    assert json.loads((folder / ".complete").read_text()) == {"files": 1, "bytes": 1}


def test_backslashes_of_windows_archives_part_folders(tmp_path):
    members = [("cats\\", b""), ("cats\\1.png", b"1")]
    assert found(unpack(make_zip(tmp_path / "a.zip", members), tmp_path / "data")) == {"cats/1.png": b"1"}


@pytest.mark.parametrize("name", ["고양이/한글 이름.png", unicodedata.normalize("NFD", "고양이.png")])
@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_names_in_other_scripts_are_kept(tmp_path, kind, name):
    folder = unpack(make(tmp_path / f"a.{kind}", [(name, b"1")]), tmp_path / "data")
    names = [unicodedata.normalize("NFC", name) for name in found(folder)]
    assert names == [unicodedata.normalize("NFC", name)]


@pytest.mark.parametrize(
    ("raw", "name"), [("고양.png".encode(), "고양.png"), (b"caf\x82.png", "café.png"), (b"plain", "plain")]
)
def test_names_of_zips_without_the_utf8_flag_are_utf8_where_they_can_be(tmp_path, raw, name):
    placeholder = b"x" * len(raw)
    archive = make_zip(tmp_path / "a.zip", [(placeholder.decode(), b"1")])
    archive.write_bytes(archive.read_bytes().replace(placeholder, raw))
    assert list(found(unpack(archive, tmp_path / "data"))) == [name]


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_other_ways_to_compress_a_zip_are_read(tmp_path, method):
    archive = make_zip(tmp_path / "a.zip", FILES.items(), method)
    assert found(unpack(archive, tmp_path / "data")) == FILES


@posix
def test_modes_and_owners_of_the_archive_are_not_taken_over(tmp_path):
    info = tarfile.TarInfo("run")
    info.mode, info.uid = 0o6777, 12345
    path = unpack(make_tar(tmp_path / "a.tar", [(info, b"1")]), tmp_path / "data") / "run"
    assert path.stat().st_mode & 0o7111 == 0
    assert path.stat().st_uid == os.getuid()


# --- names that do harm ---

HARMFUL = {
    "../evil": "leads out of the folder",
    "a/../../evil": "leads out of the folder",
    "a\\..\\..\\evil": "leads out of the folder",
    ".. /evil": "leads out of the folder",
    ".../evil": "leads out of the folder",
    "..": "leads out of the folder",
    "/evil": "has an absolute path",
    "//host/share/evil": "has an absolute path",
    "\\evil": "has an absolute path",
    "C:\\evil": "has an absolute path",
    "C:evil": "has an absolute path",
    "d:/evil": "has an absolute path",
    "a/" + "x" * 256: "has a part of more than 255 bytes in its name",
    "가" * 86: "has a part of more than 255 bytes in its name",
    "/".join(["abcdefghi"] * 101): "has a name of more than 1000 bytes",
    "CON": "has a name that Windows keeps for a device",
    "a/nul.txt": "has a name that Windows keeps for a device",
    "Aux .png": "has a name that Windows keeps for a device",
    "com1/x": "has a name that Windows keeps for a device",
    "LPT².tar.gz": "has a name that Windows keeps for a device",
    "./": "has no name",
    ".complete": "appears twice",
    ".COMPLETE": "differs from '.complete' only in a way that some systems ignore",
}


@pytest.mark.parametrize("kind", ["zip", "tar"])
@pytest.mark.parametrize(("name", "reason"), HARMFUL.items())
def test_a_harmful_name_is_refused(tmp_path, name, reason, kind):
    if name == "./":
        name = "."
    info = tarfile.TarInfo(name) if kind == "tar" else zipfile.ZipInfo("x")
    if kind == "zip":
        info.filename = name
    archive = make(tmp_path / f"a.{kind}", [("fine.txt", b"1"), (info, b"evil")])
    advice = "do not use it, or unpack it yourself and give the folder$"
    refused(archive, f": {re.escape(repr(name))} {re.escape(reason)}; {advice}")


@pytest.mark.parametrize("name", ["console", "nullable.txt", "com10", "a/.hidden", "...a", "a..b", "x:y"])
def test_a_harmless_name_is_not_refused(tmp_path, name):
    if os.name == "nt" and ":" in name:
        pytest.skip("not a name on Windows")
    archive = make_tar(tmp_path / "a.tar", [(f"sub/{name}", b"1")])
    assert list(found(unpack(archive, tmp_path / "data"))) == [f"sub/{name}"]


def test_a_nul_in_a_name_is_refused_in_a_zip(tmp_path):
    archive = make_zip(tmp_path / "a.zip", [("aXb.txt", b"1")])
    archive.write_bytes(archive.read_bytes().replace(b"aXb", b"a\0b"))
    refused(archive, r"'a\\x00b\.txt' has a NUL in its name; do not use it")


def test_a_nul_in_a_name_is_refused_in_a_tar(tmp_path):
    info = tarfile.TarInfo("x")
    info.pax_headers = {"path": "a\0b"}
    refused(make_tar(tmp_path / "a.tar", [(info, b"1")]), r"'a\\x00b' has a NUL in its name; do not use it")


def test_signs_that_windows_forbids_are_refused_there(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "FORBIDDEN", '<>:"|?*')
    archive = make_zip(tmp_path / "a.zip", [("file.txt:stream", b"1")])
    refused(archive, r"'file.txt:stream' has one of <>:\"\|\?\* in its name, which Windows does not allow; do")


@pytest.mark.parametrize(
    ("first", "second", "reason"),
    [
        ("a.png", "a.png", "appears twice"),
        ("a.png", "./a.png", "appears twice"),
        ("a", "a/b", "appears twice"),
        ("a/b", "a", "appears twice"),
        ("a.png", "A.png", "differs from 'a.png' only in a way that some systems ignore"),
        ("Cats/1", "cats/2", "differs from 'Cats' only in a way that some systems ignore"),
        ("Straße", "STRASSE", "differs from 'Straße' only"),
        ("é", "e\u0301", "differs from 'é' only"),
        ("a", "a.", "differs from 'a' only"),
    ],
)
@pytest.mark.parametrize("kind", ["zip", "tar"])
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_names_that_would_meet_are_refused(tmp_path, kind, first, second, reason):
    archive = make(tmp_path / f"a.{kind}", [(first, b"1"), (second, b"2")])
    refused(archive, f": {re.escape(repr(second))} {reason}")


# --- kinds that do harm ---


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        (tarfile.SYMTYPE, "is a link"),
        (tarfile.LNKTYPE, "is a link"),
        (tarfile.CHRTYPE, "is a device or pipe"),
        (tarfile.BLKTYPE, "is a device or pipe"),
        (tarfile.FIFOTYPE, "is a device or pipe"),
        (tarfile.GNUTYPE_SPARSE, "is a sparse file"),
    ],
)
def test_links_and_devices_are_refused_in_a_tar(tmp_path, kind, reason):
    info = tarfile.TarInfo("x")
    info.type, info.linkname = kind, "../evil"
    refused(make_tar(tmp_path / "a.tar", [("a", b"1"), (info, b"")]), f": 'x' {reason}; do not use it")


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        (stat.S_IFLNK, "is a link"),
        (stat.S_IFCHR, "is a device or pipe"),
        (stat.S_IFIFO, "is a device or pipe"),
        (stat.S_IFSOCK, "is a device or pipe"),
    ],
)
def test_links_and_devices_are_refused_in_a_zip(tmp_path, kind, reason):
    info = zipfile.ZipInfo("x")
    info.external_attr = (kind | 0o777) << 16
    refused(make_zip(tmp_path / "a.zip", [(info, b"/etc/passwd")]), f": 'x' {reason}; do not use it")


def test_a_file_below_a_link_never_gets_written(tmp_path):
    info = tarfile.TarInfo("sub")
    info.type, info.linkname = tarfile.SYMTYPE, str(tmp_path)
    refused(make_tar(tmp_path / "a.tar", [(info, b""), ("sub/evil", b"1")]), "'sub' is a link")


def patched(archive, mark, offset, value):
    """Change the byte at `offset` behind the last `mark`."""
    data = bytearray(archive.read_bytes())
    data[data.rindex(mark) + offset] = value
    archive.write_bytes(data)
    return archive


def test_an_encrypted_zip_is_refused(tmp_path):
    archive = patched(make_zip(tmp_path / "a.zip", [("x", b"1")]), b"PK\x01\x02", 8, 1)
    refused(archive, ": 'x' is encrypted; do not use it, or unpack it yourself and give the folder")


def test_a_way_to_compress_that_is_not_known_is_named(tmp_path):
    archive = patched(make_zip(tmp_path / "a.zip", [("x", b"1")]), b"PK\x01\x02", 10, 9)
    refused(archive, r": 'x' is damaged \(.*compression.*\); download it again$")


# --- damage ---


def test_a_bad_checksum_is_refused(tmp_path):
    archive = make_zip(tmp_path / "a.zip", [("a", b"1"), ("x", b"unique")], zipfile.ZIP_STORED)
    archive.write_bytes(archive.read_bytes().replace(b"unique", b"Unique"))
    refused(archive, r": 'x' is damaged \(Bad CRC-32 for file 'x'\); download it again$")


@pytest.mark.parametrize("kind", KINDS)
def test_an_archive_is_refused_wherever_it_was_cut(tmp_path, kind):
    noise = [(str(number), os.urandom(700)) for number in range(5)]
    data = make(tmp_path / f"a.{kind}", noise).read_bytes()
    # A tar's end is a block of zeros; tarfile fills up with many more, which may be missing.
    whole = 5 * (512 + 1024) + 512 if kind == "tar" else len(data)
    for length in {*range(0, whole, whole // 40), whole - 1, 512, 1536}:
        archive = tmp_path / "cut"
        archive.write_bytes(data[:length])
        refused(archive, r"(is not a zip or tar archive, or is cut short or damaged|is damaged) \(.+\); download")


def test_a_damaged_header_is_not_taken_for_the_end(tmp_path):
    archive = make_tar(tmp_path / "a.tar", [("a", b"1"), ("b", b"2")])
    data = bytearray(archive.read_bytes())
    data[1024] ^= 1
    archive.write_bytes(data)
    refused(archive, r"cut short or damaged \(the end is missing\); download it again$")


def test_a_compressed_tar_is_read_to_its_checksum(tmp_path):
    archive = make_tar(tmp_path / "a.tar.gz", [("a", b"1")], "w:gz")
    data = bytearray(archive.read_bytes())
    data[-6] ^= 1
    archive.write_bytes(data)
    refused(archive, r"cut short or damaged \(.*CRC.*\); download it again$")


@pytest.mark.parametrize("data", [b"", b"<html>", b"PK", b"PK\x03\x04", gzip.compress(b"no tar"), b"Rar!\x1a\x07"])
def test_what_is_no_archive_is_refused(tmp_path, data):
    (tmp_path / "a.zip").write_bytes(data)
    message = r"a\.zip: is not a zip or tar archive, or is cut short or damaged \(.+\); download it again$"
    refused(tmp_path / "a.zip", message)


@pytest.mark.parametrize("kind", KINDS)
def test_an_archive_without_files_is_refused(tmp_path, kind):
    archive = make(tmp_path / f"a.{kind}", [("a/", b""), (".DS_Store", b"1")])
    refused(archive, "holds no files; check that it is the right archive$")
    refused(make(tmp_path / f"b.{kind}", []), "holds no files; check that it is the right archive$")


def test_a_missing_archive_is_named(tmp_path):
    refused(tmp_path / "a.zip", r"a\.zip: there is no such file; check the path$")


def test_a_folder_is_not_an_archive(tmp_path):
    (tmp_path / "a.zip").mkdir()
    refused(tmp_path / "a.zip", r"a\.zip: cannot be read \(it is not a file\); give the path of an archive$")


@posix
def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "a.zip")
    refused(tmp_path / "a.zip", r"a\.zip: cannot be read \(it is not a file\)")


def test_a_flagged_name_that_is_no_utf8_is_refused(tmp_path):
    archive = make_zip(tmp_path / "a.zip", [("가", b"1")])
    archive.write_bytes(archive.read_bytes().replace("가".encode(), b"\xff\xff\xff"))
    refused(archive, "is not a zip or tar archive, or is cut short or damaged")


@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz"])
def test_no_damage_of_one_byte_brings_anything_but_the_right_files_or_a_refusal(tmp_path, kind):
    data = make(tmp_path / f"a.{kind}", [("a/1", b"one" * 9), ("a/2", b"two" * 9)]).read_bytes()
    archive = tmp_path / "changed"
    step = max(len(data) // 300, 1)
    for place in range(0, len(data), step):
        archive.write_bytes(data[:place] + bytes([data[place] ^ 0x41]) + data[place + 1 :])
        folder = tmp_path / "out" / str(place)
        try:
            unpack(archive, folder, limits=Limits(bytes=10**6, files=100))
        except DataError:
            assert not folder.exists()
        else:
            assert complete(folder)
    left = {path.name for path in tmp_path.iterdir()}
    assert left <= {f"a.{kind}", "changed", "out"}
    assert not list((tmp_path / "out").glob("*.unpack-*"))


# --- headers that lie about lengths ---


def tar_block(name, kind, size):
    """Give a header whose size field holds any number, below zero too."""
    info = tarfile.TarInfo(name)
    info.type = kind
    block = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    if size < 0:
        block[124:136] = (256**12 + size).to_bytes(12, "big")
    else:
        block[124:136] = b"\x80" + size.to_bytes(11, "big")
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


@pytest.mark.parametrize("size", [-1, -512, -1024, -(10**12), 2**40, 2**80])
@pytest.mark.parametrize("kind", [tarfile.REGTYPE, tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME])
@pytest.mark.parametrize("name", ["x", ".DS_Store"])
def test_a_length_that_lies_neither_hangs_nor_fills_memory(tmp_path, size, kind, name):
    begin = tar_block("fine", tarfile.REGTYPE, 0)
    (tmp_path / "a.tar").write_bytes(begin + tar_block(name, kind, size) + bytes(1 << 16))
    refused(tmp_path / "a.tar", r"damaged \(.+\); download it again$")


def test_a_long_chain_of_headers_is_refused(tmp_path):
    chain = (tar_block("h", tarfile.GNUTYPE_LONGNAME, 2) + b"a\0".ljust(512, b"\0")) * 5000
    (tmp_path / "a.tar").write_bytes(chain + tar_block("x", tarfile.REGTYPE, 0) + bytes(1024))
    refused(tmp_path / "a.tar", "cut short or damaged")


def test_a_zip_that_gives_less_than_it_says_is_refused(tmp_path):
    archive = patched(make_zip(tmp_path / "a.zip", [("x", b"12345")]), b"PK\x01\x02", 24, 3)
    refused(archive, r"'x' is damaged \(Bad CRC-32")


# --- bombs ---


@pytest.mark.parametrize("kind", KINDS)
def test_too_many_bytes_are_refused_while_they_are_written(tmp_path, kind):
    archive = make(tmp_path / f"a.{kind}", [("a", bytes(600_000)), ("b", bytes(600_000))])
    advice = "unpack it yourself and give the folder if you trust it$"
    refused(archive, f"unpacks to more than 1,000,000 bytes; {advice}", limits=Limits(bytes=1_000_000))
    assert unpack(archive, tmp_path / "data", limits=Limits(bytes=1_200_000))


@pytest.mark.parametrize("kind", ["zip", "tar.xz"])
def test_too_high_a_ratio_is_refused_above_the_floor(tmp_path, kind):
    archive = make(tmp_path / f"a.{kind}", [("a", bytes(1_000_000))])
    size = archive.stat().st_size
    message = f"unpacks to more than 100 times its {size:,} bytes; unpack it yourself"
    refused(archive, message, limits=Limits(floor=1000))
    assert unpack(archive, tmp_path / "data", limits=Limits(floor=1_000_000))


@pytest.mark.parametrize("names", [["1", "2", "3", "4"], ["1/2/3/4"], ["1/", "2/", "3/", "4/"]])
def test_too_many_files_and_folders_are_refused(tmp_path, names):
    archive = make_zip(tmp_path / "a.zip", [(name, b"") for name in names])
    message = "holds more than 3 files and folders; unpack it yourself and give the folder$"
    refused(archive, message, limits=Limits(files=3))


def test_what_is_skipped_in_a_tar_is_weighed_too(tmp_path):
    archive = make_tar(tmp_path / "a.tar.gz", [(".DS_Store", bytes(3_000_000)), ("x", b"1")], "w:gz")
    refused(archive, "a header leads out of the archive", limits=Limits(bytes=1_000_000, files=10))


def test_zeros_behind_the_end_of_a_tar_are_weighed_too(tmp_path):
    archive = make_tar(tmp_path / "a.tar", [("x", b"1")])
    archive.write_bytes(gzip.compress(archive.read_bytes() + bytes(3_000_000)))
    refused(archive, "a header asks for too much", limits=Limits(bytes=1_000_000, files=10))


def test_a_zip_that_lies_about_its_size_does_not_write_more(tmp_path):
    archive = make_zip(tmp_path / "a.zip", [("x", bytes(5_000_000))])
    data = bytearray(archive.read_bytes())
    place = data.rindex(b"PK\x01\x02")
    data[place + 16 : place + 20] = zlib.crc32(bytes(10)).to_bytes(4, "little")
    data[place + 24 : place + 28] = (10).to_bytes(4, "little")
    archive.write_bytes(data)
    assert found(unpack(archive, tmp_path / "data"))["x"] == bytes(10)


# --- disk and other processes ---

RUN = """
import sys, time
from pathlib import Path
from gantool.data import archive as module
from gantool.errors import ResourceError
"""


def child(code, *arguments):
    environment = os.environ | {"PYTHONPATH": str(Path(module.__file__).parents[2])}
    command = [sys.executable, "-c", RUN + code, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)


SLOW = """
write = module._Writing._write
def slow(self, member, path):
    write(self, member, path)
    print("written", flush=True)
    time.sleep(60)
module._Writing._write = slow
module.unpack(Path(sys.argv[1]), Path(sys.argv[2]))
"""


@posix
def test_what_a_killed_process_left_is_swept_by_the_next(tmp_path):
    archive = make_zip(tmp_path / "a.zip", FILES.items())
    out = tmp_path / "out"
    with child(SLOW, archive, out / "data") as process:
        assert process.stdout.readline() == "written\n"
        running = next(out.iterdir())
        assert f"-{process.pid}-" in running.name
        assert not complete(running)
        unpack(archive, out / "other")
        (out / "data.unpack-notes").mkdir()
        with pytest.raises(DataError):
            unpack(tmp_path / "missing", out / "data")
        assert running.is_dir()  # the process still lives
        process.send_signal(signal.SIGKILL)
    assert not (out / "data").exists()
    assert found(unpack(archive, out / "data")) == FILES
    assert sorted(path.name for path in out.iterdir()) == ["data", "data.unpack-notes", "other"]


def test_leftovers_with_our_own_number_are_swept_and_other_machines_only_when_old(tmp_path):
    archive = make_zip(tmp_path / "a.zip", FILES.items())
    ours = tmp_path / f"data.unpack-{module._host()}-{os.getpid()}-01234567"
    fresh, old = tmp_path / "data.unpack-other-1-01234567", tmp_path / "data.unpack-other-2-01234567"
    for path in (ours, fresh, old):
        path.mkdir()
        (path / "file").write_text("")
    os.utime(old, (time.time() - 90_000,) * 2)
    unpack(archive, tmp_path / "data")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.zip", "data", fresh.name]


def test_two_at_once_both_succeed(tmp_path, monkeypatch):
    archive, folder = make_zip(tmp_path / "a.zip", FILES.items()), tmp_path / "data"
    write_all = module._write_all

    def meanwhile(*arguments):
        monkeypatch.setattr(module, "_write_all", write_all)
        unpack(archive, folder)
        write_all(*arguments)

    monkeypatch.setattr(module, "_write_all", meanwhile)
    assert unpack(archive, folder) == folder
    assert found(folder) == FILES
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.zip", "data"]


def test_a_folder_that_appears_meanwhile_is_not_overwritten(tmp_path, monkeypatch):
    archive, folder = make_zip(tmp_path / "a.zip", FILES.items()), tmp_path / "data"
    write_all = module._write_all

    def meanwhile(*arguments):
        folder.mkdir()
        (folder / "mine").write_text("mine")
        write_all(*arguments)

    monkeypatch.setattr(module, "_write_all", meanwhile)
    with pytest.raises(ResourceError, match=r"data: cannot be written or read \(.+\); choose another folder"):
        unpack(archive, folder)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.zip", "data"]
    assert found(folder) == {"mine": b"mine"}


@posix
def test_a_full_disk_is_told_and_leaves_nothing(tmp_path):
    archive = make_zip(tmp_path / "a.zip", [("x", bytes(200_000))])
    code = (
        "import resource\nresource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
        "try:\n    module.unpack(Path(sys.argv[1]), Path(sys.argv[2]))\n"
        "except ResourceError as error:\n    print(error)\n"
    )
    with child(code, archive, tmp_path / "data") as process:
        output = process.communicate(timeout=20)[0]
    assert output == f"{tmp_path / 'data'}: the disk is full; free some space and start again\n"
    assert list(tmp_path.iterdir()) == [archive]


@pytest.mark.parametrize("failure", [KeyboardInterrupt, MemoryError])
def test_the_temporary_folder_goes_whatever_happens(tmp_path, monkeypatch, failure):
    def stop(*_):
        raise failure

    monkeypatch.setattr(module._Writing, "_weigh", stop)
    archive = make_zip(tmp_path / "a.zip", FILES.items())
    with pytest.raises(failure):
        unpack(archive, tmp_path / "data")
    assert list(tmp_path.iterdir()) == [archive]
