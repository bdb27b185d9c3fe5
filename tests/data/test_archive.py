"""Archives that are unpacked, and hostile or damaged ones that are refused."""

from __future__ import annotations

import contextlib
import errno
import gzip
import itertools
import json
import os
import re
import stat
import tarfile
import unicodedata
import zipfile
import zlib

import pytest
from gantool.data import archive as module
from gantool.data.archive import complete, unpack
from gantool.errors import DataError, DiskError

from archives import changed, in_directory, make, make_tar, make_zip, tar_block
from disks import FailingDisk
from processes import posix

FILES = {"cats/1.png": b"one", "cats/2.png": b"two" * 1000, "개/삼.png": b"", "top.txt": b"text"}
KINDS = ["zip", "tar", "tar.gz", "tar.bz2", "tar.xz"]
NO_ARCHIVE = r"is not a zip or tar archive, or is cut short or damaged \(.+\); download it again$"


def seen(folder):
    """What is visible in a folder and below it; the hidden files that the system locks stay."""
    return {path for path in folder.rglob("*") if path.suffix != ".lock"}


def found(folder):
    paths = [path for path in seen(folder) if path.is_file() and path.name != ".complete"]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def refused(archive, message):
    """Unpack, expect a DataError that matches, and that nothing is left or written anywhere."""
    out = archive.parent / "out"
    before = seen(archive.parent) | {out}
    with pytest.raises(DataError, match=message) as caught:
        unpack(archive, out / "data")
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 3
    assert seen(archive.parent) | {out} == before
    assert str(caught.value).startswith(f"{archive}: ")


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_unpacked_once_whole_and_marked(tmp_path, kind):
    make(tmp_path / f"a.{kind}", FILES.items()).rename(tmp_path / "name.says.nothing")
    folder = unpack(tmp_path / "name.says.nothing", tmp_path / "new" / "data")
    assert (folder, found(folder), complete(folder)) == (tmp_path / "new" / "data", FILES, True)
    assert json.loads((folder / ".complete").read_text()) == {"files": 4, "bytes": 3007}
    assert list(folder.parent.glob("[!.]*")) == [folder]
    (folder / "top.txt").unlink()
    assert unpack(tmp_path / "is not read", folder) == folder
    assert not (folder / "top.txt").exists()


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_zips_of_every_compression_are_unpacked(tmp_path, method):
    assert found(unpack(make_zip(tmp_path / "a.zip", FILES.items(), method), tmp_path / "data")) == FILES


def test_a_folder_without_a_mark_is_not_touched(tmp_path):
    (tmp_path / "data").mkdir()
    with pytest.raises(DataError, match=r"data: already exists and was not unpacked by gantool; move it away$"):
        unpack(make_zip(tmp_path / "a.zip", FILES.items()), tmp_path / "data")
    assert found(tmp_path / "data") == {}


@pytest.mark.parametrize("kind", ["zip", "tar"])
@pytest.mark.parametrize(
    ("members", "files"),
    [
        (["./", "a/", "a/", "a/b/", "a//b/./c.txt"], ["a/b/c.txt"]),
        (["__MACOSX/", "__MACOSX/._1.png", "a/.DS_Store", "a/Thumbs.db", "../.DS_Store", "a/1.png"], ["a/1.png"]),
        (["cats\\1.png", "고양이/한글 이름.png"], ["cats/1.png", "고양이/한글 이름.png"]),
        ([unicodedata.normalize("NFD", "고양이.png")], [unicodedata.normalize("NFD", "고양이.png")]),
        (["console", "nullable.txt", "com10", "a/.hidden", "...a", "a..b"], None),
        pytest.param(["sub/x:y"], None, marks=posix),
    ],
)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_harmless_names_are_kept_and_the_files_of_desktops_are_skipped(tmp_path, kind, members, files):
    archive = make(tmp_path / f"a.{kind}", [(name, b"" if name.endswith("/") else b"1") for name in members])
    assert found(unpack(archive, tmp_path / "data")) == dict.fromkeys(files or members, b"1")


@pytest.mark.parametrize(
    ("unmarked", "name"), [("고양.png".encode(), "고양.png"), (b"caf\x82.png", "café.png"), (b"plain", "plain")]
)
def test_names_of_zips_without_the_utf8_flag_are_utf8_where_they_can_be(tmp_path, unmarked, name):
    placeholder = b"x" * len(unmarked)
    archive = make_zip(tmp_path / "a.zip", [(placeholder.decode(), b"1")])
    archive.write_bytes(archive.read_bytes().replace(placeholder, unmarked))
    assert list(found(unpack(archive, tmp_path / "data"))) == [name]


@posix
def test_modes_and_owners_of_the_archive_are_ignored(tmp_path):
    info = tarfile.TarInfo("run")
    info.mode, info.uid = 0o6777, 12345
    path = unpack(make_tar(tmp_path / "a.tar", [(info, b"1")]), tmp_path / "data") / "run"
    assert (path.stat().st_mode & 0o7111, path.stat().st_uid) == (0, os.getuid())


# --- names and kinds that do harm ---

HARMFUL = {
    "leads out of the folder": ["../evil", "a/../../evil", "a\\..\\..\\evil", ".. /evil", ".../evil", ".."],
    "has an absolute path": ["/evil", "//host/share/evil", "\\evil", "C:\\evil", "C:evil", "d:/evil"],
    "has a part of more than 255 bytes in its name": ["a/" + "x" * 256, "가" * 86],
    "has a name of more than 1000 bytes": ["/".join(["abcdefghi"] * 101)],
    "has a name that Windows keeps for a device": ["CON", "a/nul.txt", "Aux .png", "com1/x", "LPT².tar.gz"],
    "has no name": ["."],
    "appears twice": [".complete"],
    "differs from '.complete' only in a way that some systems ignore": [".COMPLETE"],
}


@pytest.mark.parametrize("kind", ["zip", "tar"])
@pytest.mark.parametrize(("name", "reason"), [(name, reason) for reason, names in HARMFUL.items() for name in names])
def test_a_harmful_name_is_refused(tmp_path, name, reason, kind):
    info = tarfile.TarInfo(name) if kind == "tar" else zipfile.ZipInfo("x")
    if kind == "zip":
        info.filename = name
    archive = make(tmp_path / f"a.{kind}", [("fine.txt", b"1"), (info, b"evil")])
    advice = "do not use it, or unpack it yourself and give the folder$"
    refused(archive, f": {re.escape(repr(name))} {re.escape(reason)}; {advice}")


def test_signs_that_windows_forbids_are_refused_there(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "FORBIDDEN", '<>:"|?*')
    archive = make_zip(tmp_path / "a.zip", [("file.txt:stream", b"1")])
    refused(archive, r"'file.txt:stream' has one of <>:\"\|\?\* in its name, which Windows does not allow; do")


@pytest.mark.parametrize(
    ("first", "second", "reason"),
    [
        *((first, second, "appears twice") for first, second in [("a", "a"), ("a", "./a"), ("a", "a/b"), ("a/b", "a")]),
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


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        *((kind, "is a link") for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, stat.S_IFLNK)),
        *((kind, "is a device or pipe") for kind in (tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE)),
        *((kind, "is a device or pipe") for kind in (stat.S_IFCHR, stat.S_IFIFO, stat.S_IFSOCK)),
        (tarfile.GNUTYPE_SPARSE, "is a sparse file"),
    ],
)
def test_links_and_devices_are_refused(tmp_path, kind, reason):
    if isinstance(kind, int):
        info = zipfile.ZipInfo("sub")
        info.external_attr = (kind | 0o777) << 16
        archive = make_zip(tmp_path / "a.zip", [(info, b"/etc/passwd"), ("sub/evil", b"1")])
    else:
        info = tarfile.TarInfo("sub")
        info.type, info.linkname = kind, str(tmp_path)
        archive = make_tar(tmp_path / "a.tar", [("a", b"1"), (info, b""), ("sub/evil", b"1")])
    refused(archive, f": 'sub' {reason}; do not use it, or unpack it yourself and give the folder")


# --- damage, and headers that lie ---


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ([(8, b"\1")], "'x' is encrypted; do not use it"),
        ([(10, b"\t")], r"'x' is damaged \(.*compression.*\); download it again$"),
        ([(16, b"????")], r"'x' is damaged \(Bad CRC-32 for file 'x'\); download it again$"),
        ([(24, b"\3")], r"'x' is damaged \(Bad CRC-32"),
        ([(42, b"\xff\xff\xff\x7f")], r"'x' is damaged \(.+\); download it again$"),
    ],
)
def test_a_zip_whose_directory_lies_is_refused(tmp_path, changes, message):
    archive = make_zip(tmp_path / "a.zip", [("a", b"1"), ("x", b"12345")])
    refused(in_directory(archive, *changes), f": {message}")


def test_a_zip_that_hides_its_size_does_not_write_more(tmp_path):
    archive = make_zip(tmp_path / "a.zip", [("x", bytes(5_000_000))])
    in_directory(archive, (16, zlib.crc32(bytes(10)).to_bytes(4, "little")), (24, (10).to_bytes(4, "little")))
    assert found(unpack(archive, tmp_path / "data")) == {"x": bytes(10)}


@pytest.mark.parametrize("kind", KINDS)
def test_an_archive_is_refused_wherever_it_was_cut(tmp_path, kind):
    noise = [(str(number), os.urandom(700)) for number in range(5)]
    data = make(tmp_path / f"a.{kind}", noise).read_bytes()
    # A tar ends with a block of zeros; tarfile adds many more, which may be missing.
    whole = 5 * (512 + 1024) + 512 if kind == "tar" else len(data)
    for length in {*range(0, whole, whole // 40), whole - 1, 512, 1536}:
        (tmp_path / "cut").write_bytes(data[:length])
        refused(tmp_path / "cut", rf"{NO_ARCHIVE}|is damaged \(.+\); download it again$")


@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz"])
def test_no_damage_of_one_byte_brings_anything_but_whole_folders_or_a_refusal(tmp_path, kind):
    archive = make(tmp_path / f"a.{kind}", [("a/1", b"one" * 9), ("a/2", b"two" * 9)])
    data = archive.read_bytes()
    for place in range(0, len(data), max(len(data) // 150, 1)):
        archive.write_bytes(data[:place] + bytes([data[place] ^ 0x41]) + data[place + 1 :])
        folder = tmp_path / "out" / str(place)
        try:
            unpack(archive, folder)
        except DataError:
            assert not folder.exists()
        else:
            assert complete(folder)
    assert {path.name for path in tmp_path.iterdir()} == {archive.name, "out"}
    assert not list((tmp_path / "out").glob("*.unpack"))


@pytest.mark.parametrize(
    "data", [b"", b"<html>", b"PK", b"PK\x03\x04", gzip.compress(b"no tar", mtime=0), b"Rar!\x1a\x07"]
)
def test_a_file_that_is_no_archive_is_refused(tmp_path, data):
    (tmp_path / "a.zip").write_bytes(data)
    refused(tmp_path / "a.zip", rf"a\.zip: {NO_ARCHIVE}")


def test_an_archive_that_cannot_be_read_is_named(tmp_path):
    reason = r"cannot be read \(No such file or directory\); give the path of an archive$"
    refused(tmp_path / "a.zip", rf"a\.zip: {reason}")


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_an_archive_without_files_is_refused(tmp_path, kind):
    archive = make(tmp_path / f"a.{kind}", [("a/", b""), (".DS_Store", b"1")])
    refused(archive, "holds no files; check that it is the right archive$")


@pytest.mark.parametrize("size", [-1, -512, -1024, -(10**12), 2**30, 2**40, 2**80])
@pytest.mark.parametrize("kind", [tarfile.REGTYPE, tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME])
@pytest.mark.parametrize("name", ["x", ".DS_Store"])
def test_a_size_that_lies_neither_hangs_nor_fills_memory(tmp_path, size, kind, name):
    begin = tar_block("fine", tarfile.REGTYPE, 0)
    (tmp_path / "a.tar").write_bytes(begin + tar_block(name, kind, size) + bytes(1 << 16))
    refused(tmp_path / "a.tar", r"(damaged \(.+\)|unpacks to more than .+); download it again")


def test_a_long_chain_of_headers_is_refused(tmp_path):
    chain = (tar_block("h", tarfile.GNUTYPE_LONGNAME, 2) + b"a\0".ljust(512, b"\0")) * 5000
    (tmp_path / "a.tar").write_bytes(chain + tar_block("x", tarfile.REGTYPE, 0) + bytes(1024))
    refused(tmp_path / "a.tar", NO_ARCHIVE)


def test_a_nul_in_a_name_is_refused(tmp_path):
    archive = make_zip(tmp_path / "a.zip", [("aXb.txt", b"1")])
    archive.write_bytes(archive.read_bytes().replace(b"aXb", b"a\0b"))
    refused(archive, r"'a\\x00b\.txt' has a NUL in its name; do not use it")
    info = tarfile.TarInfo("x")
    info.pax_headers = {"path": "a\0b"}
    refused(make_tar(tmp_path / "a.tar", [(info, b"1")]), r"'a\\x00b' has a NUL in its name; do not use it")


def test_a_damaged_header_or_checksum_is_not_taken_for_the_end(tmp_path):
    archive = make_tar(tmp_path / "a.tar", [("a", b"1"), ("b", b"2")])
    refused(changed(archive, (1024, b"?")), r"cut short or damaged \(the end is missing\); download it again$")
    archive = make_tar(tmp_path / "a.tar.gz", [("a", b"1")], "w:gz")
    refused(
        changed(archive, (archive.stat().st_size - 6, b"?")), r"cut short or damaged \(.*CRC.*\); download it again$"
    )


# --- bombs ---

ADVICE = "download it again, or unpack it yourself and give the folder$"


@pytest.mark.parametrize("kind", KINDS)
def test_too_many_bytes_are_refused(tmp_path, monkeypatch, kind):
    archive = make(tmp_path / f"a.{kind}", [("a", bytes(600_000)), ("b", bytes(600_000))])
    monkeypatch.setattr(module, "MAX_BYTES", 1_000_000)
    refused(archive, f"unpacks to more than 1,000,000 bytes; {ADVICE}")
    monkeypatch.setattr(module, "MAX_BYTES", 1_200_000)
    assert unpack(archive, tmp_path / "data")
    if kind != "tar":
        monkeypatch.setattr(module, "ANY_RATIO", 1000)
        refused(archive, f"unpacks to more than 100 times its {archive.stat().st_size:,} bytes; {ADVICE}")


@pytest.mark.parametrize("names", [["1", "2", "3", "4"], ["1/2/3/4"], ["1/", "2/", "3/", "4/"]])
def test_too_many_files_and_folders_are_refused(tmp_path, monkeypatch, names):
    monkeypatch.setattr(module, "MAX_FILES", 3)
    archive = make_zip(tmp_path / "a.zip", [(name, b"") for name in names])
    refused(archive, f"holds more than 3 files and folders; {ADVICE}")


def test_a_zip_is_counted_before_anything_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "MAX_FILES", 3)
    monkeypatch.setattr(module.shutil, "copyfileobj", lambda *_: pytest.fail("a file is written"))
    archive = make_zip(tmp_path / "a.zip", [(f"{index}.png", b"1") for index in range(4)])
    refused(archive, f"holds more than 3 files and folders; {ADVICE}")


def test_skipped_files_of_a_tar_and_zeros_behind_its_end_are_counted_too(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "MAX_BYTES", 1_000_000)
    monkeypatch.setattr(module, "MAX_FILES", 10)
    archive = make_tar(tmp_path / "a.tar.gz", [(".DS_Store", bytes(3_000_000)), ("x", b"1")], "w:gz")
    refused(archive, "a header leads out of the archive")
    archive = make_tar(tmp_path / "b.tar", [("x", b"1")])
    archive.write_bytes(gzip.compress(archive.read_bytes() + bytes(3_000_000)))
    refused(archive, "a header asks for too much")


@pytest.mark.parametrize("kind", ["zip", "tar.gz"])
def test_a_disk_that_fails_at_any_operation_leaves_nothing(tmp_path, kind):
    archive = make(tmp_path / f"a.{kind}", FILES.items())
    for at in itertools.count(1):
        out, kinds = tmp_path / str(at), (errno.ENOSPC, errno.EIO, errno.EACCES, errno.EMFILE, errno.EFBIG)
        disk = FailingDisk(tmp_path, at, kinds[at % len(kinds)])
        with disk.mounted(), contextlib.suppress(DiskError):
            unpack(archive, out / "data")
        if not disk.failed:
            break
        assert not (out / "data").exists() or found(out / "data") == FILES
        assert [path for path in out.rglob("*") if path.name.endswith(".part")] == []
        assert found(unpack(archive, out / "data")) == FILES
    assert at > 20
