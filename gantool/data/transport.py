"""One request: https only, through checked redirects, given up when nothing comes.

`http.client` and not `urllib.request`, which knows one time limit for everything: a dead network has to show soon, and
a slow server has to be waited for.
"""

from __future__ import annotations

import base64
import contextlib
import errno
import ipaddress
import re
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, InvalidStateError
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from typing import TypeVar
from urllib.parse import quote, unquote, urljoin, urlsplit
from urllib.request import getproxies, proxy_bypass

from gantool.errors import GantoolError, NetworkError

Answer = TypeVar("Answer")

CHUNK = 1 << 18  # bytes asked for at once
SLOWEST = 1024  # bytes a second; a server that sends fewer is given up
CONNECT = 5.0  # seconds for name look-up, connection and certificate together
HOPS = 10  # redirects that are followed
ADVICE = "check the connection, or try again later"
ALWAYS = {"User-Agent": "gantool", "Accept": "*/*", "Connection": "close"}
BROKEN = (OSError, HTTPException, ValueError)  # what a request raises that goes wrong


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
