"""Download files over https, so that a file's final name never holds half of the file.

A download is written to `NAME.part`, is checked, and then takes its name. If its hash is known, an interrupted one
resumes. `NAME.lock` names the process that downloads. `NAME.bad` is a file with the wrong hash.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import ipaddress
import re
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from http.client import responses
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit

from requests import PreparedRequest, Request, Response
from requests.adapters import HTTPAdapter
from requests.exceptions import InvalidURL
from requests.utils import get_environ_proxies
from urllib3.exceptions import HTTPError

from gantool.data.once import once
from gantool.errors import GantoolError, NetworkError
from gantool.files import new_file, remove, rename

CHUNK = 1 << 18  # bytes read at once
MIN_SPEED = 1024  # bytes a second; a slower server is given up
CONNECT = 5.0  # seconds for each network address of a host; if IPv6 leads nowhere, IPv4 still has its turn
TIMEOUT = 15.0  # seconds until an answer starts, and that a server may stay silent later
ATTEMPTS = 3  # at each address that answers; one that cannot be reached is tried once
PAUSE = 1.0  # seconds before the second try; each later one waits twice as long
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
        urls: the addresses that hold it, at least one, tried in order.
        sha256: its SHA-256 in lower-case hexadecimal digits, if known.
    """

    name: str
    urls: tuple[str, ...]
    sha256: str | None = None


def download(remote: Remote, folder: Path, *, progress: Progress | None = None) -> Path:
    """Return `folder / remote.name`, downloaded unless it exists with the right hash.

    Args:
        remote: what to download.
        folder: where to; created if missing.
        progress: called with the name, the bytes so far and the total.

    Raises:
        GantoolError: an address is not a valid one.
        NetworkError: no address sent the file, or not the expected one.
        ResourceError: the disk is full or cannot be written, or another process holds the file too long.
    """
    urls = [checked_url(url) for url in remote.urls]
    target = folder / remote.name
    with once(target, "downloads", lambda: _is_whole(target, remote)) as missing:
        if missing:
            _try_all(remote, urls, target, progress)
    return target


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


def _is_whole(path: Path, remote: Remote) -> bool:
    return path.is_file() and (remote.sha256 is None or remote.sha256 == sha256(path))


def _try_all(remote: Remote, urls: list[str], target: Path, progress: Progress | None) -> None:
    failures: list[TryError] = []
    for url in urls:
        for attempt in range(ATTEMPTS):
            time.sleep(PAUSE * 2 ** (attempt - 1) if attempt else 0)
            try:
                return _fetch(remote, url, target, progress)
            except TryError as error:
                failure = error
            if not failure.again:
                break
        failures.append(failure)
    if len(failures) == 1:
        raise failures[0]
    reasons = ", ".join(f"{failure.place}: {failure.reason}" for failure in failures)
    raise NetworkError(f"{remote.name}: none of {len(urls)} addresses gave it ({reasons}); {ADVICE}")


def _fetch(remote: Remote, url: str, target: Path, progress: Progress | None) -> None:
    """Download from one address, and resume an earlier download. Raise TryError if it fails."""
    part = target.with_name(f"{target.name}.part")
    # Only the hash can tell whether both halves belong to the same file.
    start = part.stat().st_size if remote.sha256 and part.is_file() else 0
    with _ask(url, {"Range": f"bytes={start}-"} if start else {}) as response:
        status = response.status_code
        if status not in ((200, 206, 416) if start else (200,)):
            reason = f"answered {status} {responses.get(status, '')}".rstrip()
            raise TryError(url, reason, again=status in (408, 425, 429) or status >= 500)
        if status == 200 or response.headers.get("Content-Range", "").startswith(f"bytes {start}-"):
            start = start if status == 206 else 0
            if not start:
                remove(part)
            with new_file(part, append=bool(start)) as file:
                for have, total, block in _blocks(url, response, start):
                    file.write(block)
                    if progress:
                        progress(remote.name, have, total)
            _check_content(url, part)
    if _is_whole(part, remote):
        rename(part, target)
    elif status == 200:
        found, bad = sha256(part), f"{remote.name}.bad"
        rename(part, target.with_name(bad))
        reason = f"sent {remote.name} with sha-256 {found[:12]} instead of {str(remote.sha256)[:12]}"
        advice = f"try again later, or look at {bad} and mend the expected hash if it is right"
        raise TryError(url, reason, again=False, advice=advice)
    else:
        remove(part)  # it was not the start of the server's file
        _fetch(remote, url, target, progress)


def _blocks(url: str, response: Response, start: int) -> Iterator[tuple[int, int | None, bytes]]:
    """Yield the bytes so far, the total and the next block. Raise TryError if the body breaks off or is too slow."""
    response.raw.enforce_content_length = False  # the length is compared below
    rest = response.raw.length_remaining
    have, total = start, None if rest is None else start + rest
    since, count = time.monotonic(), 0
    while True:
        try:
            block = response.raw.read1(CHUNK, decode_content=False)
        except BROKEN as error:
            raise _failure(url, error, again=True) from error
        if not block:
            break
        have, count = have + len(block), count + len(block)
        yield have, total, block
        seconds = time.monotonic() - since
        if seconds > TIMEOUT:
            if count < MIN_SPEED * TIMEOUT:
                raise TryError(url, f"sent {count} bytes in {seconds:.1f} s", again=True)
            since, count = time.monotonic(), 0
    if total is not None and have != total:
        raise TryError(url, f"ended after {have} of {total} bytes", again=True)


def _check_content(url: str, part: Path) -> None:
    """Raise TryError for an empty file and for a web page, which servers send instead of an error."""
    with part.open("rb") as file:
        head = file.read(64).removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if not head or head.startswith((b"<!doctype html", b"<html")):
        remove(part)
        reason = "sent a web page, not a file" if head else "sent an empty file"
        raise TryError(url, reason, again=False, advice="open the address in a browser to see why")


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
    """Return the response as soon as its headers have arrived. Raise TryError if they do not within `TIMEOUT`.

    A thread waits for them, because the time limits of requests do not apply to name look-ups, and start anew with each
    byte of a header.
    """
    outcome: Future[Response] = Future()

    def run() -> None:
        try:
            proxies = {} if _is_this_machine(urlsplit(url).hostname or "") else get_environ_proxies(url)
            request = Request("GET", url, headers=HEADERS | headers).prepare()
            outcome.set_result(adapter.send(request, stream=True, timeout=(CONNECT, TIMEOUT), proxies=proxies))
        except Exception as error:
            outcome.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    try:
        return outcome.result(TIMEOUT)
    except BROKEN as error:
        outcome.add_done_callback(lambda late: late.exception() or late.result().close())  # type: ignore[func-returns-value]
        raise _failure(url, error, again=False) from error


def _failure(url: str, error: BaseException, *, again: bool) -> TryError:
    """Return the error that names the cause, around which requests and urllib3 raise their own."""
    cause = error
    while cause.__context__ and not isinstance(cause, TimeoutError):
        cause = cause.__context__
    said = " ".join((getattr(cause, "strerror", None) or str(cause)).split()).rstrip(".").lower()
    if isinstance(error, InvalidURL):  # the address itself was checked
        reason = f"the proxy of the environment is unusable ({said})"
    elif isinstance(cause, TimeoutError):
        reason = f"no answer within {TIMEOUT:g} s"
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
