"""Unpack zip and tar archives: a folder is whole or absent, and nothing is written outside of it.

Files are extracted to a temporary folder, which is renamed to `FOLDER` at the end. An archive that could do harm, or
whose files could not be the same on another system, is refused. The message names the archive, the member and the
reason.
"""

from __future__ import annotations

import bz2
import contextlib
import errno
import gzip
import json
import lzma
import os
import re
import shutil
import stat
import tarfile
import unicodedata
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from gantool.data.once import folder_once
from gantool.errors import DataError
from gantool.files import make_folder, new_file, write

MAX_BYTES = 20 * 2**30  # in all files together
MAX_FILES = 500_000  # files and folders together
MAX_RATIO = 100.0  # bytes in all files for each byte of the archive, above `ANY_RATIO` bytes
ANY_RATIO = 100 * 2**20
MARK = ".complete"  # marks a folder that was unpacked
HEADER = 1 << 24  # bytes; no header of a tar file has more, and tarfile reads a header at once
FORBIDDEN = '<>:"|?*' if os.name == "nt" else ""
RESERVED = re.compile(r"(con|prn|aux|nul|conin\$|conout\$|(com|lpt)[0-9¹²³]) *(\..*)?", re.IGNORECASE | re.DOTALL)
DECOMPRESSORS: dict[bytes, Any] = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ\0": lzma.open}
# Exceptions of zipfile, tarfile and the decompressors for damaged bytes.
DAMAGE = (
    *(tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, OSError),
    *(ValueError, LookupError, OverflowError, RuntimeError),
)


def unpack(archive: Path, folder: Path, inner: str = "") -> Path:
    """Unpack a zip or tar (plain, gz, bz2, xz) to `folder` and return it. A complete folder is left unchanged.

    Args:
        archive: the file; its contents decide what it is, not its name.
        folder: does not exist yet, or was unpacked completely before.
        inner: unpack to a folder of this name in `folder`, and return that.

    Raises:
        DataError: the archive is damaged, unsafe or too large, or `folder` is something else.
        ResourceError: the disk is full or cannot be written, or another process unpacks the folder too long.
    """
    foreign = "already exists and was not unpacked by gantool; move it away"
    with folder_once(folder, "unpacks", lambda: complete(folder / inner), otherwise=foreign) as new:
        if new:
            make_folder(new / inner, sync=False)
            _extract(archive, new / inner)
    return folder / inner


def complete(folder: Path) -> bool:
    """Return whether `folder` was unpacked by `unpack`, which makes it whole or not at all."""
    return (folder / MARK).is_file()


def _extract(archive: Path, root: Path) -> None:
    try:
        with archive.open("rb") as file:
            head = file.read(6)
    except OSError as error:
        raise DataError(f"{archive}: cannot be read ({error.strerror}); give the path of an archive") from error
    members = _Members(archive)
    if head.startswith(b"PK"):
        _extract_zip(archive, root, members)
    else:
        _extract_tar(archive, head, root, members)
    if not members.files:
        raise DataError(f"{archive}: holds no files; check that it is the right archive")
    write(root / MARK, json.dumps({"files": members.files, "bytes": members.bytes}), sync=False)


class _Members:
    """Checks names, kinds and sizes of members before they are extracted."""

    def __init__(self, archive: Path) -> None:
        self.archive, self.size = archive, archive.stat().st_size
        self.files = self.folders = self.bytes = 0
        # The path and whether it is a folder, by what a system that ignores case compares.
        self.known = {MARK: (MARK, False)}

    def admit(self, name: str, size: int, *, is_folder: bool, fault: str) -> str:
        """Return the path to extract a member to; empty if it is skipped. Raise DataError if it is unsafe."""
        parts = [part for part in name.replace("\\", "/").split("/") if part not in ("", ".")]
        if _is_junk(parts) or (is_folder and not parts):
            return ""
        if fault := fault or _fault(name, parts) or self._enter(parts, is_folder):
            advice = "do not use it, or unpack it yourself and give the folder"
            raise DataError(f"{self.archive}: {name!r} {fault}; {advice}")
        self.bytes += size
        if self.files + self.folders > MAX_FILES:
            fault = f"holds more than {MAX_FILES:,} files and folders"
        elif self.bytes > MAX_BYTES:
            fault = f"unpacks to more than {MAX_BYTES:,} bytes"
        elif self.bytes > max(ANY_RATIO, MAX_RATIO * self.size):
            fault = f"unpacks to more than {MAX_RATIO:g} times its {self.size:,} bytes"
        if fault:
            raise DataError(f"{self.archive}: {fault}; download it again, or unpack it yourself and give the folder")
        return "/".join(parts)

    def _enter(self, parts: list[str], is_folder: bool) -> str:
        """Remember a path and the folders above it. Return what is wrong with it, or nothing."""
        key = path = ""
        for depth, part in enumerate(parts, 1):
            key, path = f"{key}/{_same_case(part)}".lstrip("/"), f"{path}/{part}".lstrip("/")
            other, was_folder = self.known.get(key, ("", False))
            here_folder = is_folder or depth < len(parts)
            if other and other != path:
                return f"differs from {other!r} only in a way that some systems ignore"
            if other and not (here_folder and was_folder):
                return "appears twice"
            if not other:
                self.known[key] = (path, here_folder)
                self.folders += here_folder
                self.files += not here_folder
        return ""


@contextlib.contextmanager
def _readable(archive: Path, member: str = "") -> Iterator[None]:
    """Turn what reading an archive raises into a DataError."""
    try:
        yield
    except DAMAGE as error:
        # An error with a number is the disk's, except EINVAL: that is a position before the archive's start.
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
            raise
        said = " ".join(str(error).split()).rstrip(".") or type(error).__name__
        what = f"{member!r} is damaged" if member else "is not a zip or tar archive, or is cut short or damaged"
        raise DataError(f"{archive}: {what} ({said}); download it again") from error


def _is_junk(parts: list[str]) -> bool:
    """Return whether this is a file that macOS or Windows adds to archives."""
    lowered = [part.lower() for part in parts]
    return "__macosx" in lowered or lowered[-1:] in ([".ds_store"], ["thumbs.db"])


def _same_case(part: str) -> str:
    """Return what two names share that are one file on Windows or macOS."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", part).casefold()).rstrip(". ")


def _fault(name: str, parts: list[str]) -> str:
    """Return what is wrong with a member's name, or nothing."""
    sizes = [len(part.encode("utf-8", "replace")) for part in (*parts, name)]
    faults = {
        "has a NUL in its name": "\0" in name,
        "has an absolute path": name.startswith(("/", "\\")) or re.match(r"[A-Za-z]:", name),
        # Windows drops dots and spaces at the end: `.. ` is `..`.
        "leads out of the folder": any(not part.rstrip(". ") for part in parts),
        "has a part of more than 255 bytes in its name": max(sizes[:-1], default=0) > 255,
        "has a name of more than 1000 bytes": sizes[-1] > 1000,
        "has a name that Windows keeps for a device": any(RESERVED.fullmatch(part) for part in parts),
        f"has one of {FORBIDDEN} in its name, which Windows does not allow": any(sign in name for sign in FORBIDDEN),
        "has no name": not parts,
    }
    return next((fault for fault, found in faults.items() if found), "")


def _extract_zip(archive: Path, root: Path, members: _Members) -> None:
    with _readable(archive), zipfile.ZipFile(archive) as opened:
        named = [(info, _zip_name(info)) for info in opened.infolist()]
        folders = [name.endswith(("/", "\\")) for _, name in named]
        # All are admitted before the first is written.
        paths = [
            members.admit(name, info.file_size, is_folder=is_folder, fault=_zip_fault(info))
            for (info, name), is_folder in zip(named, folders, strict=True)
        ]
        for (info, name), is_folder, path in zip(named, folders, paths, strict=True):
            if not path:
                continue
            if is_folder:
                make_folder(root / path, sync=False)
                continue
            # zipfile decompresses all that it reads of bz2 and lzma at once, so it must read little.
            chunk = 1 << 18 if info.compress_type in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) else 4096
            with _readable(archive, name), opened.open(info) as source:
                _write(root / path, source, chunk)


def _write(path: Path, source: IO[bytes], chunk: int) -> None:
    make_folder(path.parent, sync=False)
    with new_file(path, sync=False) as file:
        shutil.copyfileobj(source, file, chunk)


def _zip_name(info: zipfile.ZipInfo) -> str:
    """Return a member's full name. That of zipfile ends at a NUL, and takes unmarked UTF-8 for code page 437."""
    name = info.orig_filename
    if info.flag_bits & 0x800 or name.isascii():
        return name
    try:
        return name.encode("cp437").decode("utf-8")
    except UnicodeError:
        return info.filename


def _zip_fault(info: zipfile.ZipInfo) -> str:
    kind = stat.S_IFMT(info.external_attr >> 16)
    if kind in (0, stat.S_IFREG, stat.S_IFDIR):
        return "is encrypted" if info.flag_bits & 0x1 else ""
    return "is a link" if kind == stat.S_IFLNK else "is a device or pipe"


class _Forward:
    """The bytes of a tar file, in order and within bounds, because tarfile trusts the sizes in headers."""

    def __init__(self, source: IO[bytes], most: int) -> None:
        self.source, self.most, self.last = source, most, b""
        self.tell = source.tell

    def read(self, size: int = -1) -> bytes:
        """Return the next `size` bytes. Raise ReadError for a size that no header may have."""
        if not 0 <= size <= HEADER or self.tell() > self.most:
            raise tarfile.ReadError("a header asks for too much")
        self.last = self.source.read(size)
        return self.last

    def seek(self, place: int) -> int:
        """Move forward to `place`. Raise ReadError for one that lies behind or too far ahead."""
        if not self.tell() <= place <= self.most:
            raise tarfile.ReadError("a header leads out of the archive")
        return self.source.seek(place)


def _extract_tar(archive: Path, head: bytes, root: Path, members: _Members) -> None:
    decompress = next((opener for mark, opener in DECOMPRESSORS.items() if head.startswith(mark)), open)
    with _readable(archive), decompress(archive, "rb") as source:
        # Every member has headers and padding besides its bytes.
        forward: Any = _Forward(source, MAX_BYTES + 4096 * MAX_FILES)
        with tarfile.open(fileobj=forward, mode="r:") as tar:
            while (info := tar.next()) is not None:
                tar.members.clear()  # type: ignore[attr-defined]  # half a million of them take much memory
                if info.size < 0:
                    raise tarfile.ReadError("a size is below zero")
                if path := members.admit(info.name, info.size, is_folder=info.isdir(), fault=_tar_fault(info)):
                    with _readable(archive, info.name):
                        _extract_member(tar, info, root / path)
        # tarfile takes a damaged header for the end, which a block of zeros has to mark.
        if forward.last != bytes(tarfile.BLOCKSIZE):
            raise tarfile.ReadError("the end is missing")
        while forward.read(1 << 18):  # up to the checksum of the compression
            pass


def _extract_member(tar: tarfile.TarFile, info: tarfile.TarInfo, path: Path) -> None:
    source = tar.extractfile(info)
    if source is None:
        make_folder(path, sync=False)
        return
    with source:
        _write(path, source, 1 << 18)


def _tar_fault(info: tarfile.TarInfo) -> str:
    if info.issparse():
        return "is a sparse file"
    if not (info.isreg() or info.isdir()):
        return "is a link" if info.issym() or info.islnk() else "is a device or pipe"
    return ""
