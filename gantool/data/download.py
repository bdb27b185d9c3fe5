"""Download a file so that its final name never holds half of it.

A file arrives as `NAME.part`, is checked, and only then takes its name. Beside it `NAME.part.json` notes
what was being fetched, so that an interrupted download continues; `NAME.lock` names the process at work;
`NAME.bad` keeps a file that was not the expected one.

One request: https only, through checked redirects, given up when nothing comes. `http.client` and not `urllib.request`,
which knows one time limit for everything: a dead network has to show soon, and a slow server has to be waited for.
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
import socket
import ssl
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
from gantool.files import BusyError, exclusive_lock

Answer = TypeVar("Answer")

CHUNK = 1 << 18  # bytes asked for at once
SLOWEST = 1024  # bytes a second; a server that sends fewer is given up
CONNECT = 5.0  # seconds for name look-up, connection and certificate together
HOPS = 10  # redirects that are followed
ADVICE = "check the connection, or try again later"
ALWAYS = {"User-Agent": "gantool", "Accept": "*/*", "Connection": "close"}
BROKEN = (OSError, HTTPException, ValueError)  # what a request raises that goes wrong
Progress = Callable[[str, int, int | None], None]  # file name, bytes so far, total bytes or None
Notes = dict[str, Any]  # of a part: url, etag, modified, total; None for what the server did not say


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
    wait: float = 3600.0,
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
        wait: seconds to wait for another process that downloads the same file.

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
    try:
        with exclusive_lock(folder / f"{remote.name}.lock", wait=wait):
            if not job.is_there() and not job.was_complete():
                _try_all(job, urls, attempts, pause)
    except BusyError as error:
        raise ResourceError(f"{job.target}: {error.holder} still downloads it; wait for it, or end it") from None
    return job.target


def sha256(path: Path) -> str:
    """Give a file's SHA-256 as 64 hexadecimal digits; raises OSError where it cannot be read."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _check_name(name: str) -> None:
    if not name or ".." in name or name[-1] in ". " or re.search(r'[\x00-\x1f/\\:"<>|?*]', name):
        raise GantoolError(f"{name!r}: this is not a plain file name; name the download without any folder")
    length = len(name.encode("utf-8", "replace"))
    if length > 200:  # `.part.json` and its like have to fit too
        raise GantoolError(f"{name[:40]}…: this is a file name of {length} bytes; use at most 200")


def _try_all(job: _Download, urls: list[str], attempts: int, pause: float) -> None:
    failures: list[TryError] = []
    for url in urls:
        for attempt in range(max(attempts, 1)):
            if attempt:
                time.sleep(pause * 2 ** (attempt - 1))
            try:
                return job.fetch(url)
            except TryError as error:
                failure = error
            if not failure.again:
                break
        failures.append(failure)
    if len(failures) == 1:
        raise failures[0]
    reasons = ", ".join(f"{failure.place}: {failure.reason}" for failure in failures)
    raise NetworkError(f"{job.remote.name}: none of {len(urls)} addresses gave it ({reasons}); {ADVICE}")


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
            if not self.wanted or not self.part.is_file() or sha256(self.part) != self.wanted:
                return False
            self._put_in_place()
            return True

    def fetch(self, url: str) -> None:
        """Download from one address, continuing what is there; raises TryError."""
        with disk(self.part):
            noted = self._noted()
            # Without notes only a hash can tell in the end whether both halves belong to one file.
            fits = noted.get("url") == url or (not noted and self.wanted)
            kept = self.part.stat().st_size if fits and self.part.is_file() else 0
        for have in dict.fromkeys((kept, 0)):
            with ask(url, _headers(have, noted), self.timeout, self.allow_http) as response:
                begun = self._begin(url, response, have, noted)
                if begun and self._receive(url, response, *begun):
                    return
            with disk(self.part):
                self.part.unlink(missing_ok=True)  # it does not fit what the server has
        raise TryError(url, f"answered {response.status} to a plain request", again=True)

    def _noted(self) -> Notes:
        try:
            return dict(json.loads(self.notes.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):  # there are none, or only half of what a killed process wrote
            return {}

    def _begin(self, url: str, response: HTTPResponse, have: int, noted: Notes) -> tuple[int, int | None] | None:
        """Give the first byte that comes and the total; None where the part has to be begun anew."""
        status, length, tag = response.status, response.length, response.headers.get("ETag")
        if status == 206:
            span = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", "").strip())
            total = int(span[2]) if span and span[2].isdigit() else None
            same = tag in (None, noted.get("etag") or tag) and total in (None, noted.get("total") or total)
            return (have, total) if have and span and int(span[1]) == have and same else None
        if status == 416 and have:
            return None
        if status != 200:
            raise refusal(url, status)
        note = {"url": url, "etag": tag, "modified": response.headers.get("Last-Modified"), "total": length}
        with disk(self.notes):
            self.part.unlink(missing_ok=True)  # before the new notes, which do not describe it
            self.notes.write_text(json.dumps(note), encoding="utf-8")
        return 0, length

    def _receive(self, url: str, response: HTTPResponse, start: int, total: int | None) -> bool:
        """Write what comes, from byte `start` on; the rest as `_settle`."""
        have, told = start, 0.0
        with disk(self.part), self.part.open("ab" if start else "wb") as file:
            for block in blocks(url, response, self.timeout):
                file.write(block)
                have += len(block)
                now = time.monotonic()
                if self.progress and now - told > 0.1:
                    self.progress(self.remote.name, have, total)
                    told = now
        if self.progress:
            self.progress(self.remote.name, have, total)
        if total is not None and have != total:
            raise TryError(url, f"ended after {have} of {total} bytes", again=True)
        return self._settle(url, continued=start > 0)

    def _settle(self, url: str, continued: bool) -> bool:
        """Check what has arrived and give it its name; False if its first half may be to blame."""
        with disk(self.part):
            with self.part.open("rb") as file:
                head = file.read(64).removeprefix(b"\xef\xbb\xbf").lstrip().lower()
            is_page = head.startswith((b"<!doctype html", b"<html"))
            if not head or (is_page and not self.target.name.lower().endswith((".html", ".htm"))):
                self.part.unlink()
                reason = "sent a web page, not a file" if is_page else "sent an empty file"
                raise TryError(url, reason, again=False, advice="open the address in a browser to see why")
            found = sha256(self.part) if self.wanted else ""
            if found == self.wanted:
                self._put_in_place()
                return True
            if continued:
                return False
            self.notes.unlink(missing_ok=True)
            self.part.replace(self.target.with_name(f"{self.remote.name}.bad"))
        reason = f"sent {self.remote.name} with sha-256 {found[:12]} instead of {self.wanted[:12]}"
        advice = f"try again later, or look at {self.remote.name}.bad and mend the expected hash if it is right"
        raise TryError(url, reason, again=False, advice=advice)

    def _put_in_place(self) -> None:
        with self.part.open("r+b") as file:
            os.fsync(file.fileno())
        self.part.replace(self.target)
        self.notes.unlink(missing_ok=True)


def _headers(have: int, noted: Notes) -> dict[str, str]:
    """Ask for what comes after `have` bytes, if they are still the same file's."""
    if not have:
        return {}
    tag = noted.get("etag") or "W/"
    same = noted.get("modified") if tag.startswith("W/") else tag  # a weak tag must not be sent in If-Range
    return {"Range": f"bytes={have}-"} | ({"If-Range": same} if same else {})


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


class TryError(NetworkError):
    """One try at one address failed; `again` says whether another try at it may do better."""

    def __init__(self, url: str, reason: str, *, again: bool, advice: str = "") -> None:
        self.place, self.reason, self.again = shown(url), reason, again
        super().__init__(f"{self.place}: {reason}; {advice or ADVICE}")


# --- addresses ----------------------------------------------------------------------------------------------


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
    host = f"[{host}]" if ":" in host else host
    path = quote(re.sub(r"%(?![0-9A-Fa-f]{2})", "%25", path), safe="/%:@!$&'()*+,;=~-._?")
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


def _redirected(here: str, location: str, allow_http: bool) -> str:
    with contextlib.suppress(UnicodeError):  # http.client reads headers as Latin-1, servers write UTF-8
        location = location.encode("latin-1").decode("utf-8")
    try:
        return checked_url(urljoin(here, location), allow_http and here.startswith("http:"))
    except (GantoolError, ValueError) as error:
        reason = f"redirects to {shown(location)}, which is not a safe https address"
        raise TryError(here, reason, again=False, advice="look for another address of the file") from error


# --- question and answer ------------------------------------------------------------------------------------


@contextlib.contextmanager
def ask(url: str, headers: dict[str, str], timeout: float, allow_http: bool = False) -> Iterator[HTTPResponse]:
    """Give the answer to a request, redirects followed.

    Args:
        url: an address as `checked_url` gives it.
        headers: sent with the request besides the usual ones, and again to each address it is redirected to.
        timeout: seconds for each answer to begin.
        allow_http: lets http pass to this machine, but not after https.

    Raises:
        TryError: there is no answer, or a redirect leads astray.
    """
    here = url
    for _ in range(HOPS + 1):
        connection = _connected(here, timeout)
        try:
            with _answer(connection, here, headers, timeout) as response:
                location = response.headers.get("Location")
                if response.status not in (301, 302, 303, 307, 308) or not location:
                    yield response
                    return
                here = _redirected(here, location, allow_http)
        finally:
            _hang_up(connection)
    raise TryError(url, f"redirects more than {HOPS} times", again=False)


def blocks(url: str, response: HTTPResponse, timeout: float) -> Iterator[bytes]:
    """Give what an answer brings, piece by piece; raises TryError where it breaks, falls silent or drips."""
    begun, count = time.monotonic(), 0
    while True:
        try:
            block = response.read1(CHUNK)
        except BROKEN as error:
            raise TryError(url, _reason(error, timeout), again=True) from error
        if not block:
            return
        yield block
        count += len(block)
        seconds = time.monotonic() - begun
        if seconds > timeout:
            if count < SLOWEST * timeout:
                raise TryError(url, f"sent {count} bytes in {seconds:.1f} s", again=True)
            begun, count = time.monotonic(), 0


def refusal(url: str, status: int) -> TryError:
    """Say what a status means that brings no file."""
    reason = {
        401: "asks for a password (401)",
        403: "does not give the file (403)",
        404: "has no such file (404)",
        410: "has no such file any more (410)",
        429: "has had too many requests (429)",
    }.get(status, f"answered {status}")
    return TryError(url, reason, again=status in (408, 425, 429) or status >= 500)


def _answer(connection: HTTPConnection, url: str, headers: dict[str, str], timeout: float) -> HTTPResponse:
    try:
        place = urlsplit(url)._replace(scheme="", netloc="").geturl()
        connection.request("GET", place, headers=ALWAYS | headers)
        return _within(timeout, connection.getresponse, HTTPResponse.close)
    except BROKEN as error:
        raise TryError(url, _reason(error, timeout), again=not isinstance(error, TimeoutError)) from error


def _connected(url: str, timeout: float) -> HTTPConnection:
    """Give an open connection; raises TryError."""
    patience = min(timeout, CONNECT)
    try:
        # Half the patience for each of a host's addresses: where IPv6 leads nowhere, IPv4 still has its turn.
        connection = _connection(url, patience / 2)
    except ValueError as error:
        raise TryError(url, f"the proxy of the environment is unusable ({error})", again=False) from error
    try:
        _within(patience, connection.connect, lambda _: _hang_up(connection))
    except BROKEN as error:
        _hang_up(connection)
        lost = (TimeoutError, socket.gaierror, ConnectionRefusedError, ssl.SSLCertVerificationError)
        unreachable = isinstance(error, OSError) and error.errno in (errno.ENETUNREACH, errno.EHOSTUNREACH)
        raise TryError(url, _reason(error, patience), again=not isinstance(error, lost) and not unreachable) from error
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
