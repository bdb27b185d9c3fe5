"""Download a file so that its final name never holds half of it.

A file arrives as `NAME.part`, is checked, and only then takes its name. Beside it `NAME.part.json` notes
what was being fetched, so that an interrupted download continues; `NAME.lock` names the process at work;
`NAME.bad` keeps a file that was not the expected one.
"""

from __future__ import annotations

import base64
import contextlib
import errno
import hashlib
import ipaddress
import json
import os
import re
import secrets
import socket
import ssl
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, InvalidStateError
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote, unquote, urljoin, urlsplit
from urllib.request import getproxies, proxy_bypass

from gantool.errors import GantoolError, NetworkError, ResourceError

Progress = Callable[[str, int, int | None], None]  # file name, bytes so far, total bytes or None
Answer = TypeVar("Answer")

CHUNK = 1 << 18  # bytes asked for at once
SLOWEST = 1024  # bytes a second; a server that sends fewer is given up
CONNECT = 5.0  # seconds for name look-up, connection and certificate together; a dead network must show soon
UNWRITTEN = 2.0  # seconds after which a lock that names nobody counts as left behind
HOPS = 10  # redirects that are followed
POLL = 0.05  # seconds between two looks at a lock
BEAT = 5.0  # seconds between two signs of life on a lock
SILENT = 60.0  # seconds without such a sign after which another machine's lock counts as left behind

_own_locks: set[str] = set()  # tokens of the locks that threads of this process hold


@dataclass(frozen=True)
class Remote:
    """A file to download.

    Args:
        name: the file's name in the folder it is downloaded to.
        urls: the addresses that hold it, tried in order.
        sha256: its SHA-256 in hexadecimal digits, if known.
    """

    name: str
    urls: tuple[str, ...]
    sha256: str | None = None


def download(
    remote: Remote,
    folder: Path,
    *,
    progress: Progress | None = None,
    timeout: float = 15.0,
    attempts: int = 3,
    allow_http: bool = False,
    pause: float = 1.0,
    wait: float = 600.0,
) -> Path:
    """Give `folder / remote.name`, downloaded unless it is already there with the right hash.

    Args:
        remote: what to download.
        folder: where to; created if missing.
        progress: called with the name, the bytes so far and the total, at most ten times a second.
        timeout: seconds that a server may stay silent.
        attempts: tries at each address that answers; one that cannot be reached is tried once.
        allow_http: lets http pass, for hosts on this machine only.
        pause: seconds before the second try; each later one waits twice as long.
        wait: seconds to wait for another process that downloads the same file but makes no headway.

    Raises:
        GantoolError: the name or an address cannot be one.
        NetworkError: no address gave the file, or not the expected one.
        ResourceError: the disk is full or cannot be written, or another process holds the file too long.
    """
    _check_name(remote.name)
    if not remote.urls:
        raise GantoolError(f"{remote.name}: there is no address to download it from; name at least one")
    urls = [checked_url(url, allow_http) for url in remote.urls]
    job = _Download(remote, folder / remote.name, progress, timeout, allow_http)
    with disk(folder):
        folder.mkdir(parents=True, exist_ok=True)
        if job.is_there():
            return job.target
    with _alone(job.target, wait):
        if not job.is_there() and not job.was_complete():
            _try_all(job, urls, attempts, pause)
    return job.target


def sha256(path: Path) -> str:
    """Give a file's SHA-256 as 64 hexadecimal digits; raises OSError where it cannot be read."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# --- what is asked for --------------------------------------------------------------------------------------


def _check_name(name: str) -> None:
    if not name or ".." in name or name[-1] in ". " or re.search(r'[\x00-\x1f/\\:"<>|?*]', name):
        raise GantoolError(f"{name!r}: this is not a plain file name; name the download without any folder")
    length = len(name.encode("utf-8", "replace"))
    if length > 200:  # `.part.json` and its like have to fit too
        raise GantoolError(f"{name[:40]}…: this is a file name of {length} bytes; use at most 200")


def checked_url(url: str, allow_http: bool = False) -> str:
    """Give `url` as it is sent: with a host in ASCII, and every character quoted that has to be.

    Args:
        url: an https address; brackets, spaces and letters of any script may stand in it.
        allow_http: lets http pass, for hosts on this machine only.

    Raises:
        GantoolError: this is no address, or a path.
        NetworkError: the address is not safe to download from.
    """
    scheme, mark, rest = url.strip().partition("://")
    scheme = scheme.lower()
    if not mark or scheme == "file" or len(scheme) < 2:
        raise GantoolError(f"{shown(url)}: this is not an https address; for a local file give its path as data.source")
    if scheme not in ("https", "http"):
        raise GantoolError(f"{shown(url)}: {scheme} is not supported; give an https address")
    place = re.split(r"[/?#]", rest, maxsplit=1)[0]
    path = "/" + rest[len(place) :].partition("#")[0].removeprefix("/")
    try:
        parts = urlsplit(f"{scheme}://{place}")
        host = (parts.hostname or "").encode("idna").decode()
        port = f":{parts.port}" if parts.port is not None else ""
    except ValueError:
        host, port = "", ""
    if not host or "@" in place or re.search(r"[\s\\%]", host):
        raise GantoolError(f"{shown(url)}: {place.rpartition('@')[2]!r} is not a host; write https://HOST/PATH")
    if scheme == "http" and not (allow_http and _is_this_machine(host)):
        raise NetworkError(f"{shown(url)}: http can be read and changed on the way; give an https address")
    path = re.sub(r"%(?![0-9A-Fa-f]{2})", "%25", path)
    host = f"[{host}]" if ":" in host else host
    path = quote(path, safe="/%:@!$&'()*+,;=~-._?")
    return f"{scheme}://{host}{port}{path}"


def shown(url: str) -> str:
    """Give an address without user, query and fragment, which may hold secrets."""
    address = " ".join(re.split(r"[?#]", url, maxsplit=1)[0].split())
    return re.sub(r"(?<=://)[^/]*@", "", address)


def _is_this_machine(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


# --- one file from its addresses ----------------------------------------------------------------------------


class _TryError(NetworkError):
    """One try at one address failed; `again` says whether another try at it may do better."""

    def __init__(self, url: str, reason: str, *, again: bool, advice: str = "") -> None:
        self.place, self.reason, self.again = shown(url), reason, again
        super().__init__(f"{self.place}: {reason}; {advice or 'check the connection, or try again later'}")


def _try_all(job: _Download, urls: list[str], attempts: int, pause: float) -> None:
    failures: list[_TryError] = []
    for url in urls:
        for attempt in range(max(attempts, 1)):
            if attempt:
                time.sleep(pause * 2 ** (attempt - 1))
            try:
                return job.fetch(url)
            except _TryError as error:
                failure = error
            if not failure.again:
                break
        failures.append(failure)
    if len(failures) == 1:
        raise failures[0]
    reasons = ", ".join(f"{failure.place}: {failure.reason}" for failure in failures)
    raise NetworkError(
        f"{job.remote.name}: none of {len(urls)} addresses gave it ({reasons}); "
        "check the connection, or try again later"
    ) from failures[-1]


@dataclass
class _Download:
    """One file on its way to its place."""

    remote: Remote
    target: Path
    progress: Progress | None
    timeout: float
    allow_http: bool

    def __post_init__(self) -> None:
        self.part = self.target.with_name(f"{self.remote.name}.part")
        self.notes = self.target.with_name(f"{self.remote.name}.part.json")
        self.wanted = (self.remote.sha256 or "").lower()

    def is_there(self) -> bool:
        """Say whether the file is in its place, with the right hash if one is known."""
        with disk(self.target):
            return self.target.is_file() and (not self.wanted or sha256(self.target) == self.wanted)

    def was_complete(self) -> bool:
        """Put an earlier download in its place if it was killed after the last byte."""
        with disk(self.part):
            size = self.part.stat().st_size if self.part.is_file() else None
            if not self.wanted or size is None or self._noted().get("total") != size:
                return False
            if sha256(self.part) != self.wanted:
                return False
            self._put_in_place()
            return True

    def fetch(self, url: str) -> None:
        """Download from one address, continuing what is there; raises _TryError."""
        with disk(self.part):
            kept, noted = self._kept(url)
        for have in dict.fromkeys((kept, 0)):
            with _ask(url, _headers(have, noted), self.timeout, self.allow_http) as response:
                begun = self._begin(url, response, have, noted)
                if begun is not None:
                    start, total = begun
                    self._receive(url, response, start, total)
                    if self._settle(url, continued=start > 0):
                        return
            with disk(self.part):
                self.part.unlink(missing_ok=True)  # it does not fit what the server has
        raise _TryError(url, f"answered {response.status} to a plain request", again=True)

    def _noted(self) -> dict[str, Any]:
        kinds = {"url": str, "etag": str, "modified": str, "total": int}
        noted = _mapping(_text(self.notes))
        return {key: noted[key] for key, kind in kinds.items() if isinstance(noted.get(key), kind)}

    def _kept(self, url: str) -> tuple[int, dict[str, Any]]:
        """Give how many bytes may be continued, and what was noted about them."""
        size, noted = self.part.stat().st_size if self.part.is_file() else 0, self._noted()
        # Without notes only a hash can tell in the end whether both halves belong to one file.
        if noted.get("url") == url or (not noted and self.wanted):
            return size, noted
        return 0, {}

    def _begin(
        self, url: str, response: HTTPResponse, have: int, noted: dict[str, Any]
    ) -> tuple[int, int | None] | None:
        """Give the first byte that comes and the total; None where the part has to be begun anew."""
        status, length, tag = response.status, response.length, response.headers.get("ETag")
        if status == 206:
            span = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", "").strip())
            total = int(span[2]) if span and span[2].isdigit() else None
            same = tag in (None, noted.get("etag", tag)) and total in (None, noted.get("total", total))
            return (have, total) if have and span and int(span[1]) == have and same else None
        if status == 416 and have:
            return None
        if status != 200:
            raise _TryError(url, _refusal(status), again=status in (408, 425, 429) or status >= 500)
        note = {"url": url, "etag": tag, "modified": response.headers.get("Last-Modified"), "total": length}
        with disk(self.notes):
            self.part.unlink(missing_ok=True)  # before the new notes, which do not describe it
            self.notes.write_text(json.dumps(note), encoding="utf-8")
        return 0, length

    def _receive(self, url: str, response: HTTPResponse, start: int, total: int | None) -> None:
        have, window_bytes, told = start, 0, 0.0
        window = time.monotonic()
        with disk(self.part), self.part.open("ab" if start else "wb") as file:
            while block := _read(url, response, self.timeout):
                file.write(block)
                have += len(block)
                window_bytes += len(block)
                now = time.monotonic()
                if now - window > self.timeout:
                    if window_bytes < SLOWEST * self.timeout:
                        raise _TryError(url, f"sent {window_bytes} bytes in {now - window:.1f} s", again=True)
                    window, window_bytes = now, 0
                if self.progress and now - told > 0.1:
                    self.progress(self.remote.name, have, total)
                    told = now
        if self.progress:
            self.progress(self.remote.name, have, total)
        if total is not None and have != total:
            raise _TryError(url, f"ended after {have} of {total} bytes", again=True)

    def _settle(self, url: str, continued: bool) -> bool:
        """Check what has arrived and give it its name; False if its first half may be to blame."""
        with disk(self.part):
            with self.part.open("rb") as file:
                head = file.read(64).removeprefix(b"\xef\xbb\xbf").lstrip().lower()
            is_page = head.startswith((b"<!doctype html", b"<html"))
            if not head or (is_page and not self.target.name.lower().endswith((".html", ".htm"))):
                self.part.unlink()
                reason = "sent a web page, not a file" if is_page else "sent an empty file"
                raise _TryError(url, reason, again=False, advice="open the address in a browser to see why")
            found = sha256(self.part) if self.wanted else ""
            if found == self.wanted:
                self._put_in_place()
            elif not continued:
                self.notes.unlink(missing_ok=True)
                self.part.replace(self.target.with_name(f"{self.remote.name}.bad"))
        if found == self.wanted or continued:
            return found == self.wanted
        reason = f"sent {self.remote.name} with sha-256 {found[:12]} instead of {self.wanted[:12]}"
        advice = f"try again later, or look at {self.remote.name}.bad and mend the expected hash if it is right"
        raise _TryError(url, reason, again=False, advice=advice)

    def _put_in_place(self) -> None:
        with self.part.open("r+b") as file:
            os.fsync(file.fileno())
        self.part.replace(self.target)
        self.notes.unlink(missing_ok=True)


# --- one request --------------------------------------------------------------------------------------------


def _headers(have: int, noted: dict[str, Any]) -> dict[str, str]:
    headers = {"User-Agent": "gantool", "Accept": "*/*", "Connection": "close"}
    if have:
        headers["Range"] = f"bytes={have}-"
        tag, modified = noted.get("etag"), noted.get("modified")
        if tag and not tag.startswith("W/"):  # a weak tag must not be sent in If-Range
            headers["If-Range"] = tag
        elif modified:
            headers["If-Range"] = modified
    return headers


@contextlib.contextmanager
def _ask(url: str, headers: dict[str, str], timeout: float, allow_http: bool) -> Iterator[HTTPResponse]:
    """Give the answer to a request, redirects followed; raises _TryError."""
    here = url
    for _ in range(HOPS + 1):
        with contextlib.ExitStack() as stack:
            connection = _connected(here, timeout)
            stack.callback(_hang_up, connection)
            try:
                parts = urlsplit(here)
                connection.request("GET", parts._replace(scheme="", netloc="").geturl(), headers=headers)
                response = _within(timeout, connection.getresponse, HTTPResponse.close)
                stack.callback(response.close)
            except (OSError, HTTPException, ValueError) as error:
                silent = isinstance(error, TimeoutError)
                raise _TryError(here, _reason(error, timeout), again=not silent) from error
            location = response.headers.get("Location")
            if response.status not in (301, 302, 303, 307, 308) or not location:
                yield response
                return
            here = _redirected(here, location, allow_http)
    raise _TryError(url, f"redirects more than {HOPS} times", again=False)


def _redirected(here: str, location: str, allow_http: bool) -> str:
    with contextlib.suppress(UnicodeError):  # http.client reads headers as Latin-1, servers write UTF-8
        location = location.encode("latin-1").decode("utf-8")
    try:
        there = urljoin(here, location)
        return checked_url(there, allow_http and here.startswith("http:"))
    except (GantoolError, ValueError) as error:
        reason = f"redirects to {shown(location)}, which is not a safe https address"
        raise _TryError(here, reason, again=False, advice="look for another address of the file") from error


def _connected(url: str, timeout: float) -> HTTPConnection:
    """Give an open connection; raises _TryError."""
    patience = min(timeout, CONNECT)
    try:
        # Half the patience for each of a host's addresses: where IPv6 leads nowhere, IPv4 still has its turn.
        connection = _connection(url, patience / 2)
    except ValueError as error:
        raise _TryError(url, f"the proxy of the environment is unusable ({error})", again=False) from error
    try:
        _within(patience, connection.connect, lambda _: _hang_up(connection))
    except (OSError, HTTPException, ValueError) as error:
        _hang_up(connection)
        lost = (TimeoutError, socket.gaierror, ConnectionRefusedError, ssl.SSLCertVerificationError)
        unreachable = isinstance(error, OSError) and error.errno in (errno.ENETUNREACH, errno.EHOSTUNREACH)
        raise _TryError(url, _reason(error, patience), again=not isinstance(error, lost) and not unreachable) from error
    connection.sock.settimeout(timeout)
    return connection


def _connection(url: str, timeout: float) -> HTTPConnection:
    """Give a connection that is not open yet, through the proxy of the environment if there is one."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    if parts.scheme == "http":
        return HTTPConnection(host, parts.port or 80, timeout=timeout)
    context = ssl.create_default_context()
    proxy = None if _is_this_machine(host) or proxy_bypass(host) else getproxies().get("https")
    if not proxy:
        return HTTPSConnection(host, parts.port or 443, timeout=timeout, context=context)
    via = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
    user = f"{unquote(via.username or '')}:{unquote(via.password or '')}".encode()
    headers = {"Proxy-Authorization": f"Basic {base64.b64encode(user).decode()}"} if via.username else {}
    connection = HTTPSConnection(via.hostname or "", via.port or 80, timeout=timeout, context=context)
    connection.set_tunnel(host, parts.port or 443, headers)
    return connection


def _within(seconds: float, work: Callable[[], Answer], undo: Callable[[Answer], object]) -> Answer:
    """Give what `work` gives; raises TimeoutError after `seconds`, and undoes what comes later.

    A socket's own time limit starts anew with each byte and does not hold for a name look-up at all.
    """
    answer: Future[Answer] = Future()

    def run() -> None:
        try:
            value = work()
        except BaseException as error:
            with contextlib.suppress(InvalidStateError):
                answer.set_exception(error)
            return
        try:
            answer.set_result(value)
        except InvalidStateError:  # nobody waits any more
            undo(value)

    threading.Thread(target=run, daemon=True).start()
    try:
        return answer.result(seconds)
    except TimeoutError:
        if answer.cancel():
            raise
        return answer.result()  # it came at the last moment, or failed by a time limit of its own


def _hang_up(connection: HTTPConnection) -> None:
    if connection.sock is not None:  # wakes a thread that still waits for an answer
        with contextlib.suppress(OSError):
            socket.socket.shutdown(connection.sock, socket.SHUT_RDWR)
    connection.close()


def _read(url: str, response: HTTPResponse, timeout: float) -> bytes:
    try:
        return response.read1(CHUNK)
    except (OSError, HTTPException, ValueError) as error:
        raise _TryError(url, _reason(error, timeout), again=True) from error


def _refusal(status: int) -> str:
    return {
        401: "asks for a password (401)",
        403: "does not give the file (403)",
        404: "has no such file (404)",
        410: "has no such file any more (410)",
        429: "has had too many requests (429)",
    }.get(status, f"answered {status}")


def _reason(error: Exception, seconds: float) -> str:
    if isinstance(error, TimeoutError):
        return f"no answer within {seconds:g} s"
    if isinstance(error, socket.gaierror):
        return "the host's name cannot be found"
    if isinstance(error, ConnectionRefusedError):
        return "the connection was refused"
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not valid ({error.verify_message.rstrip('.')})"
    said = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return f"the connection broke ({' '.join(said.split()).rstrip('.').lower() or type(error).__name__})"


# --- disk and other processes -------------------------------------------------------------------------------


@contextlib.contextmanager
def disk(place: Path) -> Iterator[None]:
    """Turn an OSError of the block into a ResourceError that names `place`."""
    try:
        yield
    except OSError as error:
        full = {errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC)}
        if error.errno in full:
            raise ResourceError(f"{place}: the disk is full; free some space and start again") from error
        said = (error.strerror or str(error)).lower()
        raise ResourceError(f"{place}: cannot be written or read ({said}); choose another folder") from error


def is_running(process: int) -> bool:
    """Say whether a process with this number runs on this machine."""
    if process <= 0:
        return False
    if sys.platform == "win32":  # where os.kill(process, 0) would end it
        import ctypes

        handle = ctypes.windll.kernel32.OpenProcess(0x00100000, False, process)  # SYNCHRONIZE
        if not handle:
            return bool(ctypes.windll.kernel32.GetLastError() == 5)  # access denied: it runs as somebody else
        ended = ctypes.windll.kernel32.WaitForSingleObject(handle, 0) == 0
        ctypes.windll.kernel32.CloseHandle(handle)
        return not ended
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass
    return True


@contextlib.contextmanager
def _alone(target: Path, wait: float) -> Iterator[None]:
    """Hold the lock of `target`; raises ResourceError where another process keeps it too long."""
    lock = target.with_name(f"{target.name}.lock")
    token = secrets.token_hex(8)
    done = threading.Event()

    def beat() -> None:
        while not done.wait(BEAT):
            with contextlib.suppress(OSError):
                os.utime(lock)

    _own_locks.add(token)
    try:
        with disk(lock):
            _take(lock, token, wait)
        threading.Thread(target=beat, daemon=True).start()
        try:
            yield
        finally:
            done.set()
            if _mapping(_text(lock)).get("token") == token:
                _remove(lock)
    finally:
        _own_locks.discard(token)


class _Stillness:
    """How long something has not changed, by this process's own clock."""

    def __init__(self) -> None:
        self.state: object = None
        self.since = time.monotonic()

    def seconds(self, state: object) -> float:
        if state != self.state:
            self.state, self.since = state, time.monotonic()
        return time.monotonic() - self.since


def _take(lock: Path, token: str, wait: float) -> None:
    """Create the lock, after waiting for whoever has it; raises ResourceError."""
    part = lock.with_name(f"{lock.name.removesuffix('.lock')}.part")
    life, headway = _Stillness(), _Stillness()
    while not _claim(lock, token):
        text = _text(lock)
        silent, still = life.seconds((text, _age_mark(lock))), headway.seconds(_age_mark(part))
        if text is None:
            if silent > min(wait, CONNECT):
                raise ResourceError(f"{lock}: cannot be created or read; remove it, or choose another folder")
        elif _is_left_behind(_mapping(text), silent):
            _clear(lock, text, token)
        elif still > wait:
            holder = _mapping(text)
            raise ResourceError(
                f"{lock}: process {holder.get('pid')} on {holder.get('host')} has had this download for "
                f"{still:.0f} s without headway; end it, or remove {lock.name} if it no longer runs"
            )
        time.sleep(POLL)


def _claim(lock: Path, token: str) -> bool:
    try:
        with lock.open("x", encoding="utf-8") as file:
            json.dump({"pid": os.getpid(), "host": socket.gethostname(), "token": token}, file)
    except FileExistsError:
        return False
    except PermissionError:
        if os.name == "nt":  # where a name that is just being removed is refused for a moment
            return False
        raise
    return True


def _is_left_behind(holder: dict[str, Any], silent: float) -> bool:
    """Say whether nobody is behind a lock that showed no sign of life for `silent` seconds."""
    process = holder.get("pid")
    if not isinstance(process, int):  # killed between creating the lock and writing into it
        return silent > UNWRITTEN
    if holder.get("host") != socket.gethostname():
        return silent > SILENT
    if process == os.getpid():  # a thread of ours, or one that had our number before us
        return holder.get("token") not in _own_locks
    return not is_running(process)


def _clear(lock: Path, text: str, token: str) -> None:
    """Remove a lock that was left behind with the contents `text`."""
    aside = lock.with_name(f"{lock.name}.{token}")
    with contextlib.suppress(OSError):
        lock.rename(aside)
        if _text(aside) != text:  # another process was quicker, and this is its new lock
            with contextlib.suppress(OSError):
                os.link(aside, lock)
        _remove(aside)


def _mapping(text: str | None) -> dict[str, Any]:
    """Read a JSON object; anything else, as what a killed process leaves, is an empty one."""
    try:
        mapping = json.loads(text or "{}")
    except ValueError:
        return {}
    return mapping if isinstance(mapping, dict) else {}


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None


def _age_mark(path: Path) -> tuple[int, int] | None:
    try:
        state = path.stat()
    except OSError:
        return None
    return state.st_mtime_ns, state.st_size


def _remove(path: Path) -> None:
    for _ in range(40):
        try:
            return path.unlink(missing_ok=True)
        except PermissionError:  # Windows, while another process reads it
            time.sleep(POLL)
        except OSError:
            return None
    return None
