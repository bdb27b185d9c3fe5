"""A disk that stands between this process and the files under a folder: it counts operations, fails, or records.

Everything that Python writes goes through it, whoever writes: it replaces `open`, and the functions of `os` that
change files. SQLite writes in C, so each commit of its database is one operation.
"""

from __future__ import annotations

import builtins
import contextlib
import errno
import io
import os
import shutil
import sqlite3
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

OPEN_TO_WRITE = os.O_WRONLY | os.O_RDWR | os.O_CREAT
SQLITE = {
    errno.ENOSPC: "database or disk is full",
    errno.EFBIG: "database or disk is full",
    errno.EIO: "disk I/O error",
    errno.EACCES: "attempt to write a readonly database",
    errno.EMFILE: "unable to open database file",
}  # what SQLite says


class Disk:
    """Calls `act(kind, *details)` before each operation under `root`; a subclass may raise an OSError there."""

    def __init__(self, root):
        self.root = os.path.realpath(root)

    def act(self, kind, *details):
        """Take note of an operation that is about to happen."""

    def acted(self, kind, *details):
        """Take note of an operation that has happened."""

    def holds(self, path):
        """Return whether a path is under the folder."""
        if isinstance(path, int):
            return False
        return os.path.abspath(os.fspath(path)).startswith(self.root + os.sep)

    @contextlib.contextmanager
    def mounted(self):
        """Let all operations of this process go through the disk while the block runs."""
        with pytest.MonkeyPatch.context() as patch:
            for module in (io, builtins):
                patch.setattr(module, "open", self._open(io.open))
            patch.setattr(os, "open", self._os_open(os.open))
            patch.setattr(os, "fsync", self._fsync(os.fsync))
            patch.setattr(shutil, "_USE_CP_SENDFILE", False, raising=False)  # copies would bypass `write`
            patch.setattr(shutil, "_use_fd_functions", False, raising=False)  # folders are deleted by their paths
            patch.setattr(sqlite3, "connect", self._connect(sqlite3.connect))
            for name in ("replace", "rename", "link"):
                patch.setattr(os, name, self._two_paths(name, getattr(os, name)))
            for name in ("mkdir", "unlink", "remove", "rmdir"):
                patch.setattr(os, name, self._one_path(name, getattr(os, name)))
            if hasattr(os, "sync"):
                patch.setattr(os, "sync", lambda: self.acted("sync"))  # the machine's own need not be written
            yield self

    def _open(self, real):
        def opened(file, mode="r", buffering=-1, encoding=None, errors=None, newline=None, closefd=True, opener=None):
            if not set(mode) & set("wax+") or not self.holds(file):
                return real(file, mode, buffering, encoding, errors, newline, closefd, opener)
            path = os.path.abspath(os.fspath(file))
            self.act("open", path)
            existed = os.path.exists(path)
            raw = _File(self, path, mode.replace("t", ""))
            self.acted("open", path, not existed, "w" in mode)
            if buffering == 0:
                return raw
            buffered = io.BufferedRandom(raw) if "+" in mode else io.BufferedWriter(raw)
            if "b" in mode:
                return buffered
            return io.TextIOWrapper(buffered, encoding, errors, newline)

        return opened

    def _os_open(self, real):
        def opened(path, flags, mode=0o777, *, dir_fd=None):
            if dir_fd is not None or not flags & OPEN_TO_WRITE or not self.holds(path):
                return real(path, flags, mode, dir_fd=dir_fd)
            place = os.path.abspath(os.fspath(path))
            self.act("open", place)
            existed = os.path.exists(place)
            found = real(path, flags, mode)
            self.acted("open", place, not existed, bool(flags & os.O_TRUNC))
            return found

        return opened

    def _fsync(self, real):
        def fsync(file):
            number = os.fstat(file if isinstance(file, int) else file.fileno()).st_ino
            self.act("fsync", number)
            self.acted("fsync", number)

        return fsync

    def _two_paths(self, name, real):
        def moved(source, target, **rest):
            if not self.holds(target) or rest:
                return real(source, target, **rest)
            paths = [os.path.abspath(os.fspath(path)) for path in (source, target)]
            kind = "link" if name == "link" else "rename"
            self.act(kind, *paths)
            real(source, target)
            return self.acted(kind, *paths)

        return moved

    def _one_path(self, name, real):
        kind = {"remove": "unlink"}.get(name, name)

        def changed(path, *mode, **rest):
            if rest.get("dir_fd") is not None or not self.holds(path):
                return real(path, *mode, **rest)
            place = os.path.abspath(os.fspath(path))
            self.act(kind, place)
            real(path, *mode, **rest)
            return self.acted(kind, place)

        return changed

    def _connect(self, real):
        disk = self

        class Connection(sqlite3.Connection):
            def commit(self):
                if self.in_transaction:
                    disk.act("commit", path)
                super().commit()
                disk.acted("commit", path)

        path = ""

        def connect(database, *arguments, **rest):
            nonlocal path
            address = urlsplit(str(database))
            path = os.path.abspath(unquote(address.path) if address.scheme == "file" else database)
            if not self.holds(path):
                return real(database, *arguments, **rest)
            return real(database, *arguments, **rest, factory=Connection)

        return connect


class _File(io.FileIO):
    """A file that was opened to be written."""

    def __init__(self, disk, path, mode):
        super().__init__(path, mode.replace("b", ""))
        self.disk, self.path = disk, path

    def write(self, data):
        data = bytes(data)
        place = os.fstat(self.fileno()).st_size if "a" in self.mode else self.tell()
        try:
            self.disk.act("write", self.path, place, data)
        except OSError:
            super().write(data[: len(data) // 2])  # a disk that fills up takes a part
            raise
        count = super().write(data)
        self.disk.acted("write", self.path, place, data)
        return count


class FailingDisk(Disk):
    """Lets the `at`-th operation fail with an error number, and if `forever` all later ones too."""

    FAILING = ("open", "write", "fsync", "rename", "link", "mkdir", "commit")

    def __init__(self, root, at=0, number=errno.ENOSPC, *, forever=False):
        super().__init__(root)
        self.at, self.number, self.forever = at, number, forever
        self.count, self.failed = 0, []

    def act(self, kind, *details):
        if kind not in self.FAILING:
            return
        self.count += 1
        if not self.at or self.count < self.at or (self.count > self.at and not self.forever):
            return
        self.failed.append((kind, *details[:1]))
        if kind == "commit":
            raise sqlite3.OperationalError(SQLITE[self.number])
        raise OSError(self.number, os.strerror(self.number), str(details[0]))


def left_over(folder):
    """Return what an interrupted command left: files in the making, and files that name the holder of a lock."""
    return sorted(
        str(path.relative_to(folder)) for path in Path(folder).rglob("*") if ".part" in path.name or path.name == "lock"
    )


class _Node:
    """A file or a folder of a recording, with what it held at the start."""

    def __init__(self, data=None):
        self.data, self.names = data, {} if data is None else None


class RecordingDisk(Disk):
    """Records operations, and replays them up to a crash: of the process, or of the whole machine.

    If the machine crashes, what was written to a file since it was last synced may be missing, cut short or zero, and
    what changed in a folder since that was last synced may not have happened, from some change on. Files and folders
    are independent of each other.
    """

    def __init__(self, root):
        super().__init__(root)
        self.events, self.ends, self.marks, self.numbers = [], [0], [], {}
        self.top = self._found(self.root)
        self.now = {self.root: self.top}
        self._walk(self.root, self.top, self.now)

    def _found(self, path):
        node = _Node(None if os.path.isdir(path) else Path(path).read_bytes())
        self.numbers[os.stat(path).st_ino] = node
        return node

    def _walk(self, path, node, paths):
        for entry in os.scandir(path) if node.names is not None else ():
            child = paths[entry.path] = node.names[entry.name] = self._found(entry.path)
            self._walk(entry.path, child, paths)

    def mark(self, value):
        """Note that a result has been promised: no later crash may lose it."""
        self.marks.append((len(self.events), value))

    def acted(self, kind, *details):
        getattr(self, f"on_{kind}")(*details)
        self.ends.append(len(self.events))

    # Each event: ("names", folder, {name: node or None}), ("data", file, place, bytes), ("cut", file) or ("sync", node)

    def _names(self, path, node, gone=None):
        folder = self.now[os.path.dirname(path)]
        changes = {} if gone is None else {os.path.basename(gone): None}
        self.events.append(("names", folder, changes | {os.path.basename(path): node}))

    def on_open(self, path, is_new, is_cut):
        if os.path.isdir(path):
            return
        if is_new or path not in self.now:
            self.now[path] = node = _Node(b"" if is_new else Path(path).read_bytes())
            self.numbers[os.stat(path).st_ino] = node
            self._names(path, node)
        elif is_cut:
            self.events.append(("cut", self.now[path]))

    def on_write(self, path, place, data):
        self.events.append(("data", self.now[path], place, data))

    def on_fsync(self, number):
        if number in self.numbers:  # else of a folder above
            self.events.append(("sync", self.numbers[number]))

    def on_sync(self):
        self.events.append(("sync", None))

    def on_rename(self, source, target):
        assert os.path.dirname(source) == os.path.dirname(target)
        if source not in self.now:  # written by other means than Python's
            self.on_open(target, False, False)
            return
        for path in [one for one in self.now if _is_in(one, target)]:
            del self.now[path]
        for path in [one for one in self.now if _is_in(one, source)]:
            self.now[target + path[len(source) :]] = self.now.pop(path)
        self._names(target, self.now[target], source)

    def on_link(self, source, target):
        self.now[target] = self.now[source]
        self._names(target, self.now[source])

    def on_mkdir(self, path):
        self.now[path] = self._found(path)
        self._names(path, self.now[path])

    def on_unlink(self, path):
        if self.now.pop(path, None):
            self._names(path, None)

    on_rmdir = on_unlink

    def on_commit(self, path):
        """SQLite's own journal makes a commit one change, which is on the disk afterwards."""
        data = Path(path).read_bytes()
        if path not in self.now:
            self.on_open(path, True, False)
        node = self.now[path]
        folder = self.now[os.path.dirname(path)]
        self.events += [("cut", node), ("data", node, 0, data), ("sync", node), ("sync", folder)]

    # Crashes

    def after_kill(self, count):
        """Return the files, by path, after `count` operations of a process that was killed then."""
        return self._tree(count, lambda _, pending: len(pending), lambda _: "all")

    def after_power_loss(self, count, draw):
        """Return the files, by path, after a crash of the machine; `draw` (a `random.Random`) chooses what is lost."""
        style = draw.choice(("names", "nothing", "mixed", "mixed"))
        if style == "nothing":
            return self._tree(count, lambda done, _: done, lambda _: "none")

        def keep_names(done, changes):
            return len(changes) if style == "names" else draw.randint(done, len(changes))

        return self._tree(count, keep_names, lambda _: draw.choice(("all", "none", "half", "zeros")))

    def _tree(self, count, keep_names, keep_data):
        changes, synced, all_synced = {}, {}, 0
        for index, (kind, node, *rest) in enumerate(self.events[:count]):
            if kind == "sync" and node is None:
                all_synced = index
            elif kind == "sync":
                synced[node] = index
            else:
                changes.setdefault(node, []).append((index, kind, *rest))
        names, contents = {}, {}
        for node, own in changes.items():
            last = max(all_synced, synced.get(node, 0))
            done = sum(index < last for index, *_ in own)
            if node.names is None:
                contents[node] = _content(node.data, own, done, keep_data(node))
                continue
            names[node] = dict(node.names)
            for _, _, change in own[: keep_names(done, own)]:
                names[node].update(change)
        found = {}

        def collect(path, node):
            for name, child in names.get(node, node.names or {}).items():
                if child is not None:
                    place = f"{path}{name}"
                    found[place] = None if child.names is not None else contents.get(child, child.data)
                    collect(f"{place}/", child)

        collect("", self.top)
        return found


def _is_in(path, folder):
    return path == folder or path.startswith(folder + os.sep)


def _content(before, changes, done, kept):
    """Return a file's content, of whose changes only `done` are on the disk for sure."""
    sure = _applied(before, changes[:done])
    if done == len(changes) or kept == "none":
        return sure
    whole = _applied(before, changes)
    if kept == "all":
        return whole
    common = next((place for place, byte in enumerate(sure) if whole[place : place + 1] != bytes([byte])), len(sure))
    if kept == "half":
        return whole[: common + (len(whole) - common) // 2]
    return whole[:common] + bytes(len(whole) - common)


def _applied(before, changes):
    cuts = [number for number, (_, kind, *_) in enumerate(changes) if kind == "cut"]
    data = bytearray(b"" if cuts else before)
    for _, _, place, written in changes[cuts[-1] + 1 if cuts else 0 :]:
        data.extend(bytes(max(0, place - len(data))))
        data[place : place + len(written)] = written
    return bytes(data)


def laid(files, folder):
    """Write files, by path, into a new folder."""
    folder.mkdir()
    for name, data in files.items():
        if data is None:
            (folder / name).mkdir()
        else:
            (folder / name).write_bytes(data)
    return folder
