"""Unpack an archive so that nothing lands outside its folder and the folder is whole or not there.

Members are read as streams and written by this module alone, into `FOLDER.unpack-HOST-PROCESS-…` beside the
folder, which takes the folder's name at the very end. What could do harm, or could not be the same on another
system, is refused with the archive, the member and the reason.
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
import secrets
import shutil
import socket
import stat
import tarfile
import time
import unicodedata
import zipfile
import zlib
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any, NoReturn, cast

from gantool.errors import DataError, ResourceError
from gantool.files import alive

MARK = ".complete"  # the file in an unpacked folder that says it is whole
CHUNK = 1 << 18  # bytes read at once
HEADER = 1 << 24  # bytes; no header of a tar file has more, and tarfile reads a header at once
DAY = 86_400.0  # seconds after which another machine's leftover is swept

JUNK_FOLDERS = {"__macosx"}
JUNK_FILES = {".ds_store", "thumbs.db"}
FORBIDDEN = '<>:"|?*' if os.name == "nt" else ""
RESERVED = re.compile(r"(con|prn|aux|nul|conin\$|conout\$|(com|lpt)[0-9¹²³]) *(\..*)?", re.IGNORECASE | re.DOTALL)

# What zipfile, tarfile and the decompressors raise on bytes that are not what they should be.
DAMAGE = (
    zipfile.BadZipFile,
    tarfile.TarError,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    OSError,
    ValueError,
    LookupError,
    OverflowError,
    NotImplementedError,
    RuntimeError,
)

_own_folders: set[Path] = set()  # temporary folders that threads of this process write


@dataclass(frozen=True)
class Limits:
    """How much an archive may hold, counted on what is written.

    Args:
        bytes: in all files together.
        files: files and folders together.
        ratio: bytes written for each byte of the archive, looked at above `floor`.
        floor: bytes up to which any ratio passes.
    """

    bytes: int = 20 * 2**30
    files: int = 500_000
    ratio: float = 100.0
    floor: int = 100 * 2**20


USUAL = Limits()


def unpack(archive: Path, folder: Path, *, limits: Limits = USUAL) -> Path:
    """Unpack a zip or tar (plain, gz, bz2, xz) to `folder` and give it; done before, nothing is done.

    Args:
        archive: the file; its contents say what it is, not its name.
        folder: does not exist yet, or was unpacked completely before.
        limits: how much the archive may hold.

    Raises:
        DataError: the archive is damaged, unsafe or too large, or `folder` is something else.
        ResourceError: the disk is full or cannot be written.
    """
    if complete(folder):
        return folder
    if folder.exists() or folder.is_symlink():
        raise DataError(f"{folder}: is already there and was not unpacked by gantool; move it away")
    with disk(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        _sweep(folder)
        temporary = _temporary(folder)
        temporary.mkdir()
    _own_folders.add(temporary)
    try:
        with disk(folder):
            _write_all(archive, temporary, limits)
        _rename(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        _own_folders.discard(temporary)
    return folder


def complete(folder: Path) -> bool:
    """Say whether `folder` was unpacked to the end."""
    try:
        mark = json.loads((folder / MARK).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(mark, dict) and isinstance(mark.get("files"), int) and isinstance(mark.get("bytes"), int)


@contextlib.contextmanager
def disk(place: Path) -> Iterator[None]:
    """Turn an OSError of the block into a ResourceError that names `place`."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise ResourceError(f"{place}: the disk is full; free some space and start again") from error
        said = (error.strerror or str(error)).lower()
        raise ResourceError(f"{place}: cannot be written or read ({said}); choose another folder") from error


# --- the temporary folder -----------------------------------------------------------------------------------


def _temporary(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.unpack-{_host()}-{os.getpid()}-{secrets.token_hex(4)}")


def _host() -> str:
    return re.sub(r"[^A-Za-z0-9.]", "_", socket.gethostname())[:40] or "here"


def _sweep(folder: Path) -> None:
    """Remove what killed processes left beside `folder`."""
    start = f"{folder.name}.unpack-"
    for path in folder.parent.iterdir():
        found = re.fullmatch(r"(.+)-(\d+)-[0-9a-f]{8}", path.name.removeprefix(start))
        if not path.name.startswith(start) or found is None or path in _own_folders:
            continue
        host, process = found[1], int(found[2])
        if host != _host():  # whose processes cannot be asked for
            with contextlib.suppress(OSError):
                if time.time() - path.stat().st_mtime > DAY:
                    shutil.rmtree(path, ignore_errors=True)
        elif process == os.getpid() or not alive(process):
            shutil.rmtree(path, ignore_errors=True)


def _rename(temporary: Path, folder: Path) -> None:
    try:
        temporary.rename(folder)
    except OSError:
        if complete(folder):  # another process unpacked the same meanwhile
            return
        with disk(folder):
            raise


# --- one member after another -------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Member:
    """What an archive holds under one name."""

    name: str
    is_folder: bool
    fault: str  # why its kind cannot be unpacked, or nothing
    chunk: int  # bytes to read at once
    open: Callable[[], IO[bytes]]


def _write_all(archive: Path, root: Path, limits: Limits) -> None:
    with _readable(archive):
        state = archive.stat()
        if not stat.S_ISREG(state.st_mode):  # a pipe would be waited for
            raise IsADirectoryError(errno.EISDIR, "it is not a file")
        with archive.open("rb") as file:
            head = file.read(6)
    members = _zip_members(archive) if head.startswith(b"PK") else _tar_members(archive, head, limits)
    writing = _Writing(archive, state.st_size, root, limits)
    with contextlib.closing(members):
        for member in members:
            writing.add(member)
    if not writing.files:
        raise DataError(f"{archive}: holds no files; check that it is the right archive")
    mark = {"files": writing.files, "bytes": writing.bytes}
    (root / MARK).write_text(json.dumps(mark), encoding="utf-8")


class _Writing:
    """Writes members below one folder, and refuses what does not belong there."""

    def __init__(self, archive: Path, size: int, root: Path, limits: Limits) -> None:
        self.archive, self.size, self.root, self.limits = archive, size, root, limits
        self.files = self.folders = self.bytes = 0
        self.known = {MARK: (MARK, False)}  # by what a system that ignores case compares

    def add(self, member: _Member) -> None:
        """Write one member; raises DataError."""
        parts = tuple(part for part in member.name.replace("\\", "/").split("/") if part not in ("", "."))
        if _is_junk(parts):
            return
        fault = member.fault or _fault(member.name, parts)
        if fault:
            self._refuse(member.name, fault)
        if not parts and member.is_folder:  # the archive's own root
            return
        if not parts:
            self._refuse(member.name, "has no name")
        self._enter(member, parts)
        if not member.is_folder:
            self._write(member, self.root.joinpath(*parts))

    def _refuse(self, name: str, fault: str) -> NoReturn:
        raise DataError(f"{self.archive}: {name!r} {fault}; do not use it, or unpack it yourself and give the folder")

    def _enter(self, member: _Member, parts: tuple[str, ...]) -> None:
        """Take the member's path and the folders above it into the books, and create the folders."""
        key = path = ""
        for depth, part in enumerate(parts, 1):
            key = f"{key}/{_same_case(part)}".removeprefix("/")
            path = f"{path}/{part}".removeprefix("/")
            is_folder = member.is_folder or depth < len(parts)
            if key in self.known:
                other, was_folder = self.known[key]
                if other != path:
                    self._refuse(member.name, f"differs from {other!r} only in a way that some systems ignore")
                if not (is_folder and was_folder):
                    self._refuse(member.name, "appears twice")
                continue
            self.known[key] = (path, is_folder)
            self._count(is_folder)
            if is_folder:
                (self.root / path).mkdir()

    def _count(self, is_folder: bool) -> None:
        self.folders += is_folder
        self.files += not is_folder
        if self.files + self.folders > self.limits.files:
            raise DataError(
                f"{self.archive}: holds more than {self.limits.files:,} files and folders; "
                "unpack it yourself and give the folder"
            )

    def _write(self, member: _Member, path: Path) -> None:
        with _readable(self.archive, member.name):
            source = member.open()
        with source, path.open("xb") as file:
            while True:
                with _readable(self.archive, member.name):
                    block = source.read(member.chunk)
                if not block:
                    return
                self.bytes += len(block)
                self._weigh()
                file.write(block)

    def _weigh(self) -> None:
        limits = self.limits
        if self.bytes > limits.bytes:
            fault = f"unpacks to more than {limits.bytes:,} bytes"
        elif self.bytes > max(limits.floor, limits.ratio * self.size):
            fault = f"unpacks to more than {limits.ratio:g} times its {self.size:,} bytes"
        else:
            return
        raise DataError(f"{self.archive}: {fault}; unpack it yourself and give the folder if you trust it")


@contextlib.contextmanager
def _readable(archive: Path, member: str | None = None) -> Iterator[None]:
    """Turn what reading an archive raises into a DataError."""
    try:
        yield
    except FileNotFoundError as error:
        raise DataError(f"{archive}: there is no such file; check the path") from error
    except (PermissionError, IsADirectoryError) as error:
        raise DataError(f"{archive}: cannot be read ({error.strerror}); give the path of an archive") from error
    except DAMAGE as error:
        said = " ".join(str(error).split()).rstrip(".") or type(error).__name__
        what = "is not a zip or tar archive, or is cut short or damaged" if member is None else f"{member!r} is damaged"
        raise DataError(f"{archive}: {what} ({said}); download it again") from error


# --- names --------------------------------------------------------------------------------------------------


def _is_junk(parts: tuple[str, ...]) -> bool:
    """Say whether this is what desktops add to archives on their own account."""
    lowered = [part.lower() for part in parts]
    return bool(lowered) and (lowered[-1] in JUNK_FILES or not JUNK_FOLDERS.isdisjoint(lowered))


def _same_case(part: str) -> str:
    """Give what two names share that are one file on Windows or macOS."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", part).casefold()).rstrip(". ")


def _fault(name: str, parts: tuple[str, ...]) -> str:
    """Say what is wrong with a member's name; nothing if it may be written."""
    if "\0" in name:
        return "has a NUL in its name"
    if name.startswith(("/", "\\")) or re.match(r"[A-Za-z]:", name):
        return "has an absolute path"
    if any(not part.rstrip(". ") for part in parts):  # Windows drops dots and spaces at the end: `.. ` is `..`
        return "leads out of the folder"
    if any(len(part.encode("utf-8", "replace")) > 255 for part in parts):
        return "has a part of more than 255 bytes in its name"
    if len(name.encode("utf-8", "replace")) > 1000:
        return "has a name of more than 1000 bytes"
    if any(RESERVED.fullmatch(part) for part in parts):
        return "has a name that Windows keeps for a device"
    if any(sign in name for sign in FORBIDDEN):
        return f"has one of {FORBIDDEN} in its name, which Windows does not allow"
    return ""


# --- zip ----------------------------------------------------------------------------------------------------


def _zip_members(archive: Path) -> Generator[_Member, None, None]:
    with contextlib.ExitStack() as stack:
        with _readable(archive):
            opened = stack.enter_context(zipfile.ZipFile(archive))
        for info in opened.infolist():
            name = _zip_name(info)
            # bz2 and lzma members are decompressed without a bound for each read, so those reads are small.
            plain = info.compress_type in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
            yield _Member(
                name,
                name.endswith(("/", "\\")),
                _zip_fault(info),
                CHUNK if plain else 4096,
                partial(opened.open, info),
            )


def _zip_name(info: zipfile.ZipInfo) -> str:
    """Give a member's full name; zipfile's own stops at a NUL, and takes unmarked UTF-8 for code page 437."""
    name = info.orig_filename
    if info.flag_bits & 0x800 or name.isascii():
        return name
    try:
        return name.encode("cp437").decode("utf-8")
    except UnicodeError:
        return info.filename


def _zip_fault(info: zipfile.ZipInfo) -> str:
    kind = stat.S_IFMT(info.external_attr >> 16)
    if kind == stat.S_IFLNK:
        return "is a link"
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        return "is a device or pipe"
    return "is encrypted" if info.flag_bits & 0x1 else ""


# --- tar ----------------------------------------------------------------------------------------------------


class _Forward:
    """The bytes of a tar file, in order and within bounds; tarfile trusts what headers say of lengths."""

    def __init__(self, source: IO[bytes], most: int) -> None:
        self.source, self.most, self.last = source, most, b""

    def read(self, size: int = -1) -> bytes:
        """Give the next `size` bytes; raises ReadError for a size that no header may ask for."""
        if not 0 <= size <= HEADER or self.tell() > self.most:
            raise tarfile.ReadError("a header asks for too much")
        self.last = self.source.read(size)
        return self.last

    def tell(self) -> int:
        """Give the place of the next byte."""
        return self.source.tell()

    def seek(self, place: int) -> int:
        """Go on to `place`; raises ReadError for one that lies behind or too far ahead."""
        if not self.tell() <= place <= self.most:
            raise tarfile.ReadError("a header leads out of the archive")
        return self.source.seek(place)


def _tar_members(archive: Path, head: bytes, limits: Limits) -> Generator[_Member, None, None]:
    with contextlib.ExitStack() as stack:
        with _readable(archive):
            source = stack.enter_context(_decompressed(archive, head))
            # Every member has headers and padding besides its bytes.
            forward = _Forward(source, limits.bytes + 4096 * limits.files)
            opened = stack.enter_context(tarfile.open(fileobj=cast("IO[bytes]", forward), mode="r:"))
        while True:
            with _readable(archive):
                info = opened.next()
                if info is not None and info.size < 0:
                    raise tarfile.ReadError("a length is below zero")
            if info is None:
                break
            cast("Any", opened).members.clear()  # tarfile remembers them all, which half a million would make long
            yield _Member(info.name, info.isdir(), _tar_fault(info), CHUNK, partial(_tar_stream, opened, info))
        with _readable(archive):
            # tarfile takes a damaged header for the end, which a block of zeros has to mark.
            if forward.last != bytes(tarfile.BLOCKSIZE):
                raise tarfile.ReadError("the end is missing")
            while forward.read(CHUNK):  # to the checksum of the compression
                pass


def _decompressed(archive: Path, head: bytes) -> IO[bytes]:
    if head.startswith(b"\x1f\x8b"):
        return cast("IO[bytes]", gzip.open(archive))
    if head.startswith(b"BZh"):
        return cast("IO[bytes]", bz2.open(archive))
    if head.startswith(b"\xfd7zXZ\0"):
        return cast("IO[bytes]", lzma.open(archive))
    return archive.open("rb")


def _tar_stream(opened: tarfile.TarFile, info: tarfile.TarInfo) -> IO[bytes]:
    stream = opened.extractfile(info)
    if stream is None:
        raise tarfile.ReadError("it is not a file")
    return stream


def _tar_fault(info: tarfile.TarInfo) -> str:
    if info.issym() or info.islnk():
        return "is a link"
    if info.issparse():
        return "is a sparse file"
    if not (info.isreg() or info.isdir()):
        return "is a device or pipe"
    return ""
