"""Download files over https, so that a file's final name never holds half of the file.

A download is written to `NAME.part`, is checked, and then takes its name. `NAME.part.from` records where it came from,
so that an interrupted download resumes. `NAME.lock` names the process that downloads. `NAME.bad` is a file with the
wrong hash.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import ipaddress
import os
import re
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from http.client import responses
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit

from requests import PreparedRequest, Request, Response
from requests.adapters import HTTPAdapter
from requests.exceptions import InvalidURL
from requests.utils import get_environ_proxies, select_proxy
from urllib3.exceptions import HTTPError

from gantool.errors import GantoolError, NetworkError, ResourceError
from gantool.files import BusyError, disk, exclusive_lock

CHUNK = 1 << 18  # bytes read at once
MIN_SPEED = 1024  # bytes a second; a slower server is given up
CONNECT = 5.0  # seconds for a name look-up, and again for a connection
TIMEOUT = 15.0  # seconds that a server may stay silent
ATTEMPTS = 3  # at each address that answers; one that cannot be reached is tried once
PAUSE = 1.0  # seconds before the second try; each later one waits twice as long
WAIT = 3600.0  # seconds to wait for another process that downloads the same file
MAX_REDIRECTS = 10
ADVICE = "check the connection, or try again later"
HEADERS = {"User-Agent": "gantool", "Accept": "*/*", "Accept-Encoding": "identity", "Connection": "close"}
BROKEN = (HTTPError, OSError, ValueError)  # what a failed request raises; every error of requests is an OSError
Progress = Callable[[str, int, int | None], None]  # file name, bytes so far, total bytes or None


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


def download(remote: Remote, folder: Path, *, progress: Progress | None = None) -> Path:
    """Return `folder / remote.name`, downloaded unless it exists with the right hash.

    Args:
        remote: what to download.
        folder: where to; created if missing.
        progress: called with the name, the bytes so far and the total, at most ten times a second.

    Raises:
        GantoolError: the name or an address is not a valid one.
        NetworkError: no address sent the file, or not the expected one.
        ResourceError: the disk is full or cannot be written, or another process holds the file too long.
    """
    _check_name(remote.name)
    if not remote.urls:
        raise GantoolError(f"{remote.name}: no address to download it from; name at least one")
    urls = [checked_url(url) for url in remote.urls]
    job = _Download(remote, folder / remote.name, progress)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if job.is_whole(job.target):
            return job.target
        with exclusive_lock(folder / f"{remote.name}.lock", wait=WAIT):
            if job.wanted and job.is_whole(job.part):  # the process was killed after the last byte
                job.finish()
            elif not job.is_whole(job.target):
                _try_all(job, urls)
    except BusyError as error:
        raise ResourceError(f"{job.target}: {error.holder} still downloads it; wait for it, or end it") from None
    except OSError as error:
        raise disk(job.target, error) from error
    return job.target


def sha256(path: Path) -> str:
    """Return a file's SHA-256 as 64 hexadecimal digits. Raise OSError if it cannot be read."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def checked_url(url: str, *, https_only: bool = False) -> str:
    """Return `url` as it is sent: the host in ASCII, other characters quoted, no fragment.

    Only an address of this machine may be of http, and none if `https_only`.

    Raises:
        GantoolError: this is a path, or no address.
        NetworkError: the address is not safe to download from.
    """
    scheme, _, rest = url.strip().partition("://")
    scheme = scheme.lower()
    if scheme not in ("https", "http"):
        raise GantoolError(f"{_shown(url)}: this is not an https address; give a local file's path as data.source")
    place = re.split(r"[/?#]", rest, maxsplit=1)[0]
    rest = re.sub(r"%(?![0-9A-Fa-f]{2})", "%25", rest.partition("#")[0])
    try:
        sent = Request("GET", f"{scheme}://{rest}").prepare().url or ""
        host = (urlsplit(sent).hostname or "").encode("idna").decode()
    except BROKEN:
        host = ""
    if not host or re.search(r"[\s\\%@]", place):
        raise GantoolError(f"{_shown(url)}: {place.rpartition('@')[2]!r} is not a host; write https://HOST/PATH")
    if scheme == "http" and (https_only or not _is_this_machine(host)):
        raise NetworkError(f"{_shown(url)}: http can be read and changed on the way; give an https address")
    return sent


class TryError(NetworkError):
    """One try at one address failed; `again` says whether another try may succeed."""

    def __init__(self, url: str, reason: str, *, again: bool, advice: str = ADVICE) -> None:
        self.place, self.reason, self.again = _shown(url), reason, again
        super().__init__(f"{self.place}: {reason}; {advice}")


@dataclass
class _Download:
    """One file, and the files beside it while it is downloaded."""

    remote: Remote
    target: Path
    progress: Progress | None

    def __post_init__(self) -> None:
        self.part = self.target.with_name(f"{self.remote.name}.part")
        self.record = self.target.with_name(f"{self.remote.name}.part.from")
        self.wanted = (self.remote.sha256 or "").lower()

    def is_whole(self, path: Path) -> bool:
        """Return whether a file exists, with the right hash if one is known."""
        return path.is_file() and (not self.wanted or sha256(path) == self.wanted)

    def finish(self) -> None:
        """Move the downloaded file to its place."""
        with self.part.open("r+b") as file:
            os.fsync(file.fileno())
        self.part.replace(self.target)
        self.record.unlink(missing_ok=True)

    def fetch(self, url: str) -> None:
        """Download from one address, and resume an earlier download. Raise TryError if it fails."""
        start, version = self._kept(url)
        headers = ({"Range": f"bytes={start}-"} if start else {}) | ({"If-Range": version} if start and version else {})
        with _ask(url, headers) as response:
            status, total, found = response.status_code, response.raw.length_remaining, _version(response)
            if status == 200:
                start = 0
                self.part.unlink(missing_ok=True)  # before the new record, which does not describe it
                self.record.write_text(f"{url}\n{found}", encoding="utf-8")
            elif not start or status not in (206, 416):
                reason = f"answered {status} {responses.get(status, '')}".rstrip()
                raise TryError(url, reason, again=status in (408, 425, 429) or status >= 500)
            span = re.match(rf"bytes {start}-\d+/", response.headers.get("Content-Range", ""))
            fits = status == 200 or (status == 206 and span and (not version or found in ("", version)))
            if fits and self._receive(url, response, start, total):
                return
        self.part.unlink(missing_ok=True)  # it is not the start of the server's file
        self.fetch(url)

    def _kept(self, url: str) -> tuple[int, str]:
        """Return how many bytes of an earlier download can be kept, and which version of the file they come from."""
        version = ""
        with contextlib.suppress(OSError, ValueError):  # missing, or cut off when the process was killed
            known, _, found = self.record.read_text(encoding="utf-8").partition("\n")
            version = found if known == url else ""
        # Without a version, only the hash can tell whether both halves belong to the same file.
        usable = (version or self.wanted) and self.part.is_file()
        return (self.part.stat().st_size if usable else 0), version

    def _receive(self, url: str, response: Response, start: int, rest: int | None) -> bool:
        """Write what arrives from byte `start` on, and check it. Return False if the kept bytes may be wrong."""
        have, total, reported = start, None if rest is None else start + rest, 0.0
        with self.part.open("ab" if start else "wb") as file:
            for block in _blocks(url, response):
                file.write(block)
                have += len(block)
                if self.progress and time.monotonic() - reported > 0.1:
                    self.progress(self.remote.name, have, total)
                    reported = time.monotonic()
        if self.progress:
            self.progress(self.remote.name, have, total)
        if total is not None and have != total:
            raise TryError(url, f"ended after {have} of {total} bytes", again=True)
        with self.part.open("rb") as file:
            head = file.read(64).removeprefix(b"\xef\xbb\xbf").lstrip().lower()
        is_page = head.startswith((b"<!doctype html", b"<html"))
        if not head or (is_page and not self.target.name.lower().endswith((".html", ".htm"))):
            self.part.unlink()
            reason = "sent a web page, not a file" if is_page else "sent an empty file"
            raise TryError(url, reason, again=False, advice="open the address in a browser to see why")
        found = sha256(self.part) if self.wanted else ""
        if found == self.wanted:
            self.finish()
        elif not start:
            self.record.unlink(missing_ok=True)
            self.part.replace(self.target.with_name(f"{self.remote.name}.bad"))
            reason = f"sent {self.remote.name} with sha-256 {found[:12]} instead of {self.wanted[:12]}"
            advice = f"try again later, or look at {self.remote.name}.bad and mend the expected hash if it is right"
            raise TryError(url, reason, again=False, advice=advice)
        return found == self.wanted


def _check_name(name: str) -> None:
    if not name or ".." in name or name[-1] in ". " or re.search(r'[\x00-\x1f/\\:"<>|?*]', name):
        raise GantoolError(f"{name!r}: this is not a plain file name; name the download without any folder")
    if (length := len(name.encode("utf-8", "replace"))) > 200:  # `.part.from` is appended to it
        raise GantoolError(f"{name[:40]}…: this is a file name of {length} bytes; use at most 200")


def _try_all(job: _Download, urls: list[str]) -> None:
    failures: list[TryError] = []
    for url in urls:
        for attempt in range(ATTEMPTS):
            time.sleep(PAUSE * 2 ** (attempt - 1) if attempt else 0)
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


def _version(response: Response) -> str:
    """Return what tells one version of a file from another; If-Range does not allow weak tags."""
    tag: str = response.headers.get("ETag", "W/")
    return response.headers.get("Last-Modified", "") if tag.startswith("W/") else tag


class _Adapter(HTTPAdapter):
    """Trust the certificates that the system trusts, not those that requests brings."""

    def build_connection_pool_key_attributes(
        self, request: PreparedRequest, verify: Any, cert: Any = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        host, _ = super().build_connection_pool_key_attributes(request, verify, cert)
        return host, {"ssl_context": ssl.create_default_context()}

    def cert_verify(self, *_: Any) -> None:
        """Leave the certificates of the pool's own context alone."""


@contextlib.contextmanager
def _ask(url: str, headers: dict[str, str]) -> Iterator[Response]:
    """Yield the response to a request, after redirects that are safe. Raise TryError if there is none.

    This uses an adapter, because a session of requests would follow redirects to http, read their bodies into memory
    and send passwords of `.netrc`.
    """
    here = url
    with contextlib.closing(_Adapter()) as adapter:
        for _ in range(MAX_REDIRECTS + 1):
            with _respond(adapter, here, headers) as response:
                if not response.is_redirect:
                    yield response
                    return
                location = response.headers["Location"]
            with contextlib.suppress(UnicodeError):  # headers are read as Latin-1, but servers write UTF-8
                location = location.encode("latin-1").decode("utf-8")
            try:
                here = checked_url(urljoin(here, location), https_only=here.startswith("https:"))
            except (GantoolError, ValueError) as error:
                reason = f"redirects to {_shown(location)}, which is not a safe https address"
                raise TryError(here, reason, again=False, advice="look for another address of the file") from error
    raise TryError(url, f"redirects more than {MAX_REDIRECTS} times", again=False)


def _respond(adapter: HTTPAdapter, url: str, headers: dict[str, str]) -> Response:
    host, limit = urlsplit(url).hostname or "", CONNECT
    try:
        proxies = {} if _is_this_machine(host) else get_environ_proxies(url)
        if not select_proxy(url, proxies):
            _within(limit, lambda: socket.getaddrinfo(host, None))
        limit = TIMEOUT
        # Each of a host's addresses gets half the time: if IPv6 leads nowhere, IPv4 still has its turn.
        limits = (CONNECT / 2, TIMEOUT)
        request = Request("GET", url, headers=HEADERS | headers).prepare()
        send = partial(adapter.send, request, stream=True, timeout=limits, proxies=proxies)
        return _within(CONNECT + TIMEOUT, send)
    except BROKEN as error:
        raise _failure(url, error, limit) from error


def _blocks(url: str, response: Response) -> Iterator[bytes]:
    """Yield the body as it arrives. Raise TryError if it breaks off, stops or is too slow."""
    response.raw.enforce_content_length = False  # the caller compares the length
    since, count = time.monotonic(), 0
    while True:
        try:
            block = response.raw.read1(CHUNK, decode_content=False)
        except BROKEN as error:
            raise _failure(url, error, TIMEOUT, again=True) from error
        if not block:
            return
        yield block
        count += len(block)
        seconds = time.monotonic() - since
        if seconds > TIMEOUT:
            if count < MIN_SPEED * TIMEOUT:
                raise TryError(url, f"sent {count} bytes in {seconds:.1f} s", again=True)
            since, count = time.monotonic(), 0


def _within(seconds: float, work: Callable[[], Any]) -> Any:
    """Return what `work` returns. Raise TimeoutError after `seconds`.

    The time limits of requests do not apply to name look-ups, and start anew with each byte of a header.
    """
    outcome: Future[Any] = Future()

    def run() -> None:
        try:
            outcome.set_result(work())
        except Exception as error:
            outcome.set_exception(error)

    def close(late: Future[Any]) -> None:
        with contextlib.suppress(Exception):  # it failed, or is no response
            late.result().close()

    threading.Thread(target=run, daemon=True).start()
    try:
        return outcome.result(seconds)
    except TimeoutError:
        outcome.add_done_callback(close)
        raise


def _failure(url: str, error: BaseException, seconds: float, again: bool = False) -> TryError:
    """Return the error that names the cause, around which requests and urllib3 raise their own."""
    cause = error
    while cause.__context__ and not isinstance(cause, TimeoutError):
        cause = cause.__context__
    said = " ".join((getattr(cause, "strerror", None) or str(cause)).split()).rstrip(".").lower()
    if isinstance(error, InvalidURL):  # the address itself was checked
        reason = f"the proxy of the environment is unusable ({said})"
    elif isinstance(cause, TimeoutError):
        reason = f"no answer within {seconds:g} s"
    elif isinstance(cause, socket.gaierror):
        reason = "the host's name cannot be found"
    elif isinstance(cause, ConnectionRefusedError):
        reason = "the connection was refused"
    elif isinstance(cause, ssl.SSLCertVerificationError):
        reason = f"its certificate is not valid ({cause.verify_message.rstrip('.')})"
    else:
        reason = f"the connection broke ({said or type(cause).__name__})"
        again = again or getattr(cause, "errno", None) not in (errno.ENETUNREACH, errno.EHOSTUNREACH)
    return TryError(url, reason, again=again)


def _shown(url: str) -> str:
    """Return an address without user, query and fragment, which may hold secrets."""
    return re.sub(r"(?<=://)[^/]*@", "", " ".join(re.split(r"[?#]", url, maxsplit=1)[0].split()))


def _is_this_machine(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
