"""Downloads from real servers on this machine: good ones, broken ones and hostile ones."""

from __future__ import annotations

import base64
import contextlib
import errno
import gzip
import hashlib
import itertools
import re
import shutil
import socket
import ssl
import time

import pytest
from gantool.data import download as module
from gantool.data.download import Remote, checked_url, download
from gantool.errors import DiskError, NetworkError

from disks import FailingDisk
from loopback import FILE, Site, certificate, ranged, raw, short, slow, status, stuck, whole
from processes import child, posix, visible
from refusals import refusal

NEW = FILE[::-1] + b"more"
HASH, NEW_HASH = hashlib.sha256(FILE).hexdigest(), hashlib.sha256(NEW).hexdigest()


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(module, "TIMEOUT", 5.0)
    monkeypatch.setattr(module, "PAUSE", 0.001)


@pytest.fixture
def site():
    site = Site()
    yield site
    site.close()


def test_a_file_is_downloaded_once_and_leaves_nothing_beside_it(site, tmp_path, monkeypatch):
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login me password secret\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    remote = Remote("a.zip", (site.on("/a.zip", whole()),), HASH)
    reported, folder = [], tmp_path / "new" / "folder"
    for _ in range(2):
        path = download(remote, folder, progress=lambda *values: reported.append(values))
        assert (path, path.read_bytes(), visible(folder)) == (folder / "a.zip", FILE, ["a.zip"])
    assert reported[-1] == ("a.zip", len(FILE), len(FILE))
    ((_, headers),) = site.requests
    assert headers["User-Agent"] == "gantool"
    assert "Authorization" not in headers
    path.write_bytes(b"damaged")
    assert download(remote, folder).read_bytes() == FILE


@pytest.mark.parametrize("known", [True, False])
def test_a_disk_that_fails_at_any_operation_is_reported_and_the_next_try_succeeds(known, site, tmp_path):
    remote = Remote("a.zip", (site.on("/a.zip", ranged()),), HASH if known else None)
    for at in itertools.count(1):
        folder, kinds = tmp_path / str(at), (errno.ENOSPC, errno.EIO, errno.EACCES, errno.EMFILE, errno.EFBIG)
        folder.mkdir()
        disk = FailingDisk(folder, at, kinds[at % len(kinds)])
        with disk.mounted(), contextlib.suppress(DiskError):
            download(remote, folder)
        if not disk.failed:
            break
        assert not (folder / "a.zip").exists() or (folder / "a.zip").read_bytes() == FILE
        assert set(visible(folder)) <= {"a.zip", "a.zip.part"}
        assert download(remote, folder).read_bytes() == FILE
        assert visible(folder) == ["a.zip"]
    assert at > 5


@pytest.mark.parametrize(
    ("name", "body", "options"),
    [
        ("a.zip", FILE, {"length": -1}),
        ("a.gz", gzip.compress(FILE, mtime=0), {"headers": {"Content-Encoding": "gzip"}}),
    ],
)
def test_a_file_is_kept_as_it_was_sent(site, tmp_path, name, body, options):
    remote = Remote(name, (site.on("/a", whole(body, **options)),))
    for _ in range(2):
        assert download(remote, tmp_path).read_bytes() == body
    assert len(site.requests) == 1


def test_brackets_spaces_and_hangul_in_an_address_are_quoted(site, tmp_path):
    quoted = "/contest/ai_competition%5B2024%5D_basic/a%20b/%EA%B3%A0.zip?n=%5B1%5D"
    base = site.on(quoted, whole()).removesuffix(quoted)
    url = f"{base}/contest/ai_competition[2024]_basic/a b/고.zip?n=[1]#part"
    download(Remote("a.zip", (url,)), tmp_path)
    assert site.requests[0][0] == quoted
    assert checked_url(base + quoted) == base + quoted
    assert checked_url(" HTTPS://Bücher.example:8443?a=1%&b=%20 ") == "https://xn--bcher-kva.example:8443/?a=1%25&b=%20"
    assert checked_url("http://[::1]:80/x") == "http://[::1]:80/x"


def test_redirects_are_followed_with_ranges_and_their_bodies_are_not_read(site, tmp_path):
    site.on("/real/고.zip".replace("고", "%EA%B3%A0"), short(1000), ranged())
    endless = raw("HTTP/1.1 302 Found\r\nLocation: /real/고.zip\r\nContent-Length: 9999\r\n\r\n".encode())
    url = site.on("/a.zip", lambda request: (endless(request), request.closing.wait(60)))
    assert download(Remote("a.zip", (url,), HASH), tmp_path).is_file()
    assert site.ranges() == [None, None, "bytes=1000-", "bytes=1000-"]


@pytest.mark.parametrize(
    ("part", "answer", "digest", "ranges"),
    [
        (FILE[:500], ranged(), HASH, ["bytes=500-"]),
        (FILE[:500], ranged(), None, [None]),
        (FILE[:500], whole(), HASH, ["bytes=500-"]),
        (FILE[:500], ranged(NEW), NEW_HASH, ["bytes=500-", None]),
        (b"something else", ranged(), HASH, ["bytes=14-", None]),
        (FILE + b"too much", ranged(), HASH, [f"bytes={len(FILE) + 8}-", None]),
        (FILE, ranged(), HASH, [f"bytes={len(FILE)}-"]),
        (None, [short(1000), ranged()], HASH, [None, "bytes=1000-"]),
        (None, [short(1000), whole()], None, [None, None]),
    ],
)
def test_an_interrupted_download_is_resumed_if_its_hash_is_known(site, tmp_path, part, answer, digest, ranges):
    if part:
        (tmp_path / "a.zip.part").write_bytes(part)
    url = site.on("/a.zip", *(answer if isinstance(answer, list) else [answer]))
    assert download(Remote("a.zip", (url,), digest), tmp_path).read_bytes() in (FILE, NEW)
    assert (site.ranges(), visible(tmp_path)) == (ranges, ["a.zip"])


def test_a_wrong_hash_names_both_and_moves_the_file_aside(site, tmp_path):
    url = site.on("/a.zip", whole(b"not it"))
    found = hashlib.sha256(b"not it").hexdigest()
    assert refusal(download, Remote("a.zip", (url,), HASH), tmp_path, code=6) == (
        f"{url}: sent a.zip with sha-256 {found[:12]} instead of {HASH[:12]}; "
        "try again later, or look at a.zip.bad and mend the expected hash if it is right"
    )
    assert visible(tmp_path) == ["a.zip.bad"]


def test_addresses_are_tried_in_order_and_all_are_named_when_none_has_the_file(site, tmp_path):
    urls = [site.on("/1?key=secret", status(404)), site.on("/2", short(7)), site.on("/3", whole(b"<html>"))]
    reasons = (
        f"{urls[0].partition('?')[0]}: answered 404 Not Found, {urls[1]}: ended after 7 of {len(FILE)} bytes, "
        f"{urls[2]}: sent a web page, not a file"
    )
    message = refusal(download, Remote("a.zip", tuple(urls)), tmp_path, code=6)
    assert message == f"a.zip: none of 3 addresses gave it ({reasons}); {module.ADVICE}"
    urls += [site.on("/4", whole(b"wrong")), site.on("/5", status(500), status(503), whole())]
    assert download(Remote("a.zip", tuple(urls), HASH), tmp_path).read_bytes() == FILE


UNSAFE = ["file:///etc/passwd", "ftp://127.0.0.1/x", "http://example.invalid/x", "https://[/"]
ASTRAY = "which is not a safe https address; look for another address of the file$"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n10000\r\n" + FILE[:1000]
BROKEN = r"the connection broke \(.+\); check the connection"


@pytest.mark.parametrize(
    ("answer", "message", "times"),
    [
        (status(401), "answered 401 Unauthorized; check the connection, or try again later$", 1),
        (status(599), "answered 599;", 3),
        (status(206, **{"Content-Range": "bytes 5-14/300"}), "answered 206 Partial Content;", 1),
        (short(1000), f"ended after 1000 of {len(FILE)} bytes; check the connection", 3),
        (whole(b"\xef\xbb\xbf<html>"), "sent a web page, not a file; open the address in a browser", 1),
        (whole(b""), "sent an empty file; open the address", 1),
        *((status(302, Location=place), rf"redirects to {re.escape(place)}, {ASTRAY}", 1) for place in UNSAFE),
        (status(301, Location="/a.zip"), "redirects more than 10 times; check the connection", 11),
        (raw(CHUNKED), BROKEN, 3),
        (raw(b"nonsense\r\n\r\n"), BROKEN, 3),
        (raw(b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 200), BROKEN, 3),
        (stuck(), r"no answer within 1 s; check the connection", 1),
        (stuck(begin=b"HTTP/1.1 200 OK\r\nX: ", pause=0.01), r"no answer within 1 s", 1),  # endless headers
        (stuck(count=1000), r"no answer within 1 s", 2),
        (stuck(count=1, pause=0.02), r"sent \d+ bytes in \d+\.\d s; check the connection", 2),
    ],
)
def test_a_broken_or_hostile_server_is_refused_in_one_line(site, tmp_path, monkeypatch, answer, message, times):
    if answer.__qualname__.startswith("stuck"):
        monkeypatch.setattr(module, "TIMEOUT", 1.0)
        monkeypatch.setattr(module, "ATTEMPTS", 2)
    found = refusal(download, Remote("a.zip", (site.on("/a.zip", answer),)), tmp_path, code=6)
    assert re.match(rf"http://127\.0\.0\.1:\d+/a\.zip: {message}", found)
    assert len(site.requests) == times
    assert {"a.zip", "a.zip.lock"}.isdisjoint(visible(tmp_path))


# --- no network ---


def fails(error):
    def look_up(*_, **__):
        raise error

    return look_up


@pytest.mark.parametrize(
    ("look_up", "reason"),
    [
        (fails(socket.gaierror(socket.EAI_NONAME, "Name or service not known")), "the host's name cannot be found"),
        (fails(OSError(errno.ENETUNREACH, "Unreachable")), r"the connection broke \(unreachable\)"),
        (fails(ConnectionRefusedError()), "the connection was refused"),
        (lambda *_, **__: time.sleep(2), r"no answer within 0\.1 s"),
    ],
)
def test_a_host_that_cannot_be_reached_is_tried_once(tmp_path, monkeypatch, look_up, reason):
    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    monkeypatch.setattr(module, "TIMEOUT", 0.1 if "within" in reason else 60.0)
    monkeypatch.setattr(module, "ATTEMPTS", 1 if "refused" in reason else 3)
    monkeypatch.setattr(module, "PAUSE", 600.0)
    urls = ("https://one.example/a.zip", "https://two.example/a.zip")
    with pytest.raises(NetworkError, match=rf"one.example/a.zip: {reason}, https://two.example/a.zip: {reason}\)"):
        download(Remote("a.zip", urls), tmp_path)


def test_the_proxy_of_the_environment_is_used_with_its_password(site, tmp_path, monkeypatch):
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("https_proxy", f"http://me:pass%20word@127.0.0.1:{site.port}")
    site.on("one.example:443", status(403))
    remote = Remote("a.zip", ("https://one.example/a.zip",))
    with pytest.raises(NetworkError, match=r"one.example/a.zip: the connection broke \(tunnel .*403"):
        download(remote, tmp_path)
    assert site.requests[0][1]["Proxy-Authorization"] == "Basic " + base64.b64encode(b"me:pass word").decode()
    monkeypatch.setenv("https_proxy", "http://proxy:port")
    with pytest.raises(NetworkError, match=r"a\.zip: the proxy of the environment is unusable \(.+\);"):
        download(remote, tmp_path)


@pytest.mark.skipif(not shutil.which("openssl"), reason="openssl makes the certificate")
def test_https_needs_a_valid_certificate_and_never_redirects_to_http(site, tmp_path, tmp_path_factory, monkeypatch):
    public, key = certificate(tmp_path_factory.mktemp("certificate"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(public, key)
    with contextlib.closing(Site(context)) as secure:
        url = secure.on("/a.zip", short(1000), ranged())
        with pytest.raises(NetworkError, match=r"a\.zip: its certificate is not valid \(self.signed certificate\);"):
            download(Remote("a.zip", (url,)), tmp_path)
        assert (secure.requests, visible(tmp_path)) == ([], [])
        monkeypatch.setenv("SSL_CERT_FILE", str(public))
        assert download(Remote("a.zip", (url,), HASH), tmp_path).read_bytes() == FILE
        url = secure.on("/b.zip", status(302, Location=site.on("/b.zip", whole())))
        with pytest.raises(NetworkError, match="which is not a safe https address"):
            download(Remote("b.zip", (url,)), tmp_path)
    url = site.on("/c.zip", whole()).replace("http", "https")
    with pytest.raises(NetworkError, match=r"the connection broke \(\[ssl"):
        download(Remote("c.zip", (url,)), tmp_path)
    assert site.requests == []


# --- addresses ---

NO_ADDRESS = "this is not an https address; give a local file's path as data.source"
NO_HOST = "' is not a host; write https://HOST/PATH"


@pytest.mark.parametrize(
    ("url", "message"),
    [
        *((url, f"{url}: {NO_ADDRESS}") for url in ("a/b.zip", "file:///a", "C:\\a", "")),
        *((url, NO_HOST) for url in ("https:///a", "https://a b/", "https://[::1/", "https://u:p@h/", "https://h%2f/")),
    ],
)
def test_impossible_addresses_are_refused(tmp_path, url, message):
    found = refusal(download, Remote("a", (url,)), tmp_path, code=2)
    assert found.endswith(message)
    assert "p@" not in found
    assert visible(tmp_path) == []


@pytest.mark.parametrize("host", ["example.com", "localhost.example.com", "127.0.0.1.example.com", "127.0.0.1"])
def test_http_is_refused_beyond_this_machine(tmp_path, host):
    message = f"^http://{host}/a: http can be read and changed on the way; give an https address$"
    with pytest.raises(NetworkError, match=message):
        checked_url(f"http://{host}/a?key=secret#x", https_only=host == "127.0.0.1")


# --- disk and other processes ---

FETCH = """
    import resource, sys
    from pathlib import Path
    from gantool.data.download import Remote, download
    from gantool.errors import ResourceError

    url, folder, digest, limit = sys.argv[1:]
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(limit), int(limit)))
    try:
        print(download(Remote("a.zip", (url,), digest), Path(folder)))
    except ResourceError as error:
        print(error)
"""


@posix
def test_a_full_disk_keeps_the_part(site, tmp_path):
    url = site.on("/a.zip", ranged())
    with child(FETCH, url, tmp_path, HASH, 100_000) as process:
        assert process.communicate(timeout=60)[0].startswith(f"{tmp_path}/a.zip: the disk is full; ")
    kept = (tmp_path / "a.zip.part").stat().st_size
    assert 0 < kept <= 100_000
    assert download(Remote("a.zip", (url,), HASH), tmp_path).read_bytes() == FILE
    assert site.ranges() == [None, f"bytes={kept}-"]


@posix
def test_two_processes_that_want_the_same_file_both_get_it_from_one_download(site, tmp_path):
    url = site.on("/a.zip", slow(1.0))
    with child(FETCH, url, tmp_path, HASH, 10**9) as first, child(FETCH, url, tmp_path, HASH, 10**9) as second:
        for process in (first, second):
            assert process.communicate(timeout=60)[0] == f"{tmp_path}/a.zip\n"
    assert (len(site.requests), visible(tmp_path)) == (1, ["a.zip"])
