from __future__ import annotations

import base64
import contextlib
import errno
import hashlib
import http.server
import json
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from gantool.data import download as module
from gantool.data.download import Remote, checked_url, disk, download, sha256, shown
from gantool.errors import GantoolError, NetworkError, ResourceError

FILE = bytes(range(256)) * 1200  # 300 KiB
HASH = hashlib.sha256(FILE).hexdigest()
QUICK = {"timeout": 5.0, "pause": 0.001, "allow_http": True}
posix = pytest.mark.skipif(os.name == "nt", reason="signals and limits of POSIX")


class Site:
    """A loopback server; `answers` maps a path to what handles a request for it."""

    def __init__(self, context=None):
        site = self
        self.answers, self.asked, self.closing = {}, [], threading.Event()

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                site.asked.append((self.path, dict(self.headers)))
                with contextlib.suppress(OSError):
                    site.answers.get(self.path, not_found)(self)

            do_CONNECT = do_GET  # noqa: N815

            def log_message(self, *_):
                pass

        class Server(http.server.ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_):
                pass

        self.server = Server(("127.0.0.1", 0), Handler)
        self.scheme = "https" if context else "http"
        if context:
            self.server.socket = context.wrap_socket(
                self.server.socket, server_side=True, do_handshake_on_connect=False
            )
        self.port = self.server.server_address[1]
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True)
        self.thread.start()

    def url(self, path):
        return f"{self.scheme}://127.0.0.1:{self.port}{path}"

    def on(self, path, *handlers):
        """Answer the first request with the first handler and so on; the last one stays."""
        queue = list(handlers)
        self.answers[path] = lambda request: (queue.pop(0) if len(queue) > 1 else queue[0])(request)
        return self.url(path)

    def ranges(self):
        return [headers.get("Range") for _, headers in self.asked]

    def close(self):
        self.closing.set()
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


@pytest.fixture
def site():
    site = Site()
    yield site
    site.close()


def send(request, body, status=200, length=None, **headers):
    request.send_response(status)
    length = len(body) if length is None else length
    if length >= 0:
        request.send_header("Content-Length", str(length))
    for name, value in headers.items():
        request.send_header(name.replace("_", "-"), value)
    request.end_headers()
    request.wfile.write(body)


def whole(body=FILE, **headers):
    return lambda request: send(request, body, **headers)


def status(code, **headers):
    return lambda request: send(request, b"<html>sorry</html>", code, **headers)


not_found = status(404)


def short(count, body=FILE, **headers):
    """Promise everything and stop after `count` bytes."""
    return lambda request: send(request, body[:count], length=len(body), **headers)


def ranged(body=FILE, **headers):
    """Serve as a good server does: Range and If-Range are heeded."""

    def answer(request):
        asked = re.fullmatch(r"bytes=(\d+)-", request.headers.get("Range", ""))
        expected = request.headers.get("If-Range")
        if not asked or (expected and expected not in headers.values()):
            return send(request, body, **headers)
        start = int(asked[1])
        if start >= len(body):
            return send(request, b"", 416, Content_Range=f"bytes */{len(body)}")
        span = f"bytes {start}-{len(body) - 1}/{len(body)}"
        return send(request, body[start:], 206, Content_Range=span, **headers)

    return answer


def silent(site, count=0, pause=0.0):
    """Send `count` bytes, then nothing, or with a pause one byte after another."""

    def answer(request):
        if count:
            send(request, FILE[:count], length=len(FILE))
        while not site.closing.wait(pause or 60):
            request.wfile.write(b"x")

    return answer


def names(folder):
    """What is to be seen in a folder; the hidden files that the system locks stay."""
    return sorted(path.name for path in folder.iterdir() if path.name[0] != ".")


def refused_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


# --- what goes well ---


def test_a_file_is_downloaded_once_and_leaves_nothing_beside_it(site, tmp_path):
    remote = Remote("a.zip", (site.on("/a.zip", whole()),), HASH.upper())
    told = []
    path = download(remote, tmp_path / "new" / "folder", progress=lambda *seen: told.append(seen), **QUICK)
    assert path == tmp_path / "new" / "folder" / "a.zip"
    assert path.read_bytes() == FILE
    assert names(path.parent) == ["a.zip"]
    assert told[-1] == ("a.zip", len(FILE), len(FILE))
    assert download(remote, path.parent, **QUICK) == path
    assert len(site.asked) == 1
    assert site.asked[0][1]["User-Agent"] == "gantool"


def test_a_file_without_a_known_hash_is_taken_as_it_is(site, tmp_path):
    remote = Remote("a.zip", (site.on("/a.zip", whole()),))
    assert download(remote, tmp_path, **QUICK).read_bytes() == FILE
    download(remote, tmp_path, **QUICK)
    assert len(site.asked) == 1


def test_a_file_in_place_with_another_hash_is_downloaded_again(site, tmp_path):
    (tmp_path / "a.zip").write_bytes(b"old")
    download(Remote("a.zip", (site.on("/a.zip", whole()),), HASH), tmp_path, **QUICK)
    assert sha256(tmp_path / "a.zip") == HASH


def test_a_file_without_a_length_is_read_to_its_end(site, tmp_path):
    told = []
    url = site.on("/a.zip", whole(length=-1))
    download(Remote("a.zip", (url,)), tmp_path, progress=lambda *seen: told.append(seen), **QUICK)
    assert (tmp_path / "a.zip").read_bytes() == FILE
    assert told[-1] == ("a.zip", len(FILE), None)


def test_a_chunked_answer_that_breaks_off_is_not_taken_for_the_file(site, tmp_path):
    def chunked(request):
        request.protocol_version = "HTTP/1.1"
        request.send_response(200)
        request.send_header("Transfer-Encoding", "chunked")
        request.end_headers()
        request.wfile.write(b"10000\r\n" + FILE[:1000])
        request.close_connection = True

    url = site.on("/a.zip", chunked)
    with pytest.raises(NetworkError, match=r"a\.zip: the connection broke \(.*\); check the connection"):
        download(Remote("a.zip", (url,)), tmp_path, **QUICK)
    assert not (tmp_path / "a.zip").exists()


def test_brackets_spaces_and_hangul_in_an_address_are_quoted(site, tmp_path):
    quoted = "/contest/ai_competition%5B2024%5D_basic/a%20b/%EA%B3%A0.zip?n=%5B1%5D"
    site.on(quoted, whole())
    url = site.url("/contest/ai_competition[2024]_basic/a b/고.zip?n=[1]#part")
    download(Remote("a.zip", (url,)), tmp_path, **QUICK)
    assert site.asked[0][0] == quoted


def test_an_address_is_made_ascii_and_nothing_is_quoted_twice():
    wanted = "https://daiv-cnu.duckdns.org/contest/ai_competition%5B2024%5D_basic/dataset/datasets.zip"
    given = "https://daiv-cnu.duckdns.org/contest/ai_competition[2024]_basic/dataset/datasets.zip"
    assert checked_url(given) == wanted
    assert checked_url(wanted) == wanted
    assert checked_url(" HTTPS://Bücher.example:8443?a=100% ") == ("https://xn--bcher-kva.example:8443/?a=100%25")
    assert checked_url("http://[::1]:80/x", allow_http=True) == "http://[::1]:80/x"


def test_redirects_are_followed_and_ranges_go_with_them(site, tmp_path):
    site.on("/real", short(1000), ranged())
    url = site.on("/a.zip", status(302, Location="/real"))
    assert download(Remote("a.zip", (url,), HASH), tmp_path, **QUICK).is_file()
    assert site.ranges() == [None, None, "bytes=1000-", "bytes=1000-"]


def test_an_html_file_may_be_a_web_page(site, tmp_path):
    url = site.on("/a", whole(b"<!DOCTYPE html><p>"))
    assert download(Remote("a.html", (url,)), tmp_path, **QUICK).is_file()


# --- continuing ---


def test_a_short_body_is_continued_where_it_ended(site, tmp_path):
    url = site.on("/a.zip", short(1000, ETag='"1"'), ranged(ETag='"1"'))
    assert download(Remote("a.zip", (url,)), tmp_path, **QUICK).read_bytes() == FILE
    assert site.ranges() == [None, "bytes=1000-"]
    assert site.asked[1][1]["If-Range"] == '"1"'
    assert names(tmp_path) == ["a.zip"]


def test_last_modified_stands_in_for_a_weak_tag(site, tmp_path):
    marks = {"ETag": 'W/"1"', "Last_Modified": "Wed, 21 Oct 2015 07:28:00 GMT"}
    url = site.on("/a.zip", short(1000, **marks), ranged(**marks))
    assert download(Remote("a.zip", (url,)), tmp_path, **QUICK).read_bytes() == FILE
    assert site.asked[1][1]["If-Range"] == marks["Last_Modified"]


def test_a_server_that_ignores_ranges_is_read_from_the_start(site, tmp_path):
    url = site.on("/a.zip", short(1000), whole())
    assert download(Remote("a.zip", (url,)), tmp_path, **QUICK).read_bytes() == FILE
    assert site.ranges() == [None, "bytes=1000-"]


@pytest.mark.parametrize("heeds_if_range", [True, False])
def test_a_file_that_changed_meanwhile_is_begun_anew(site, tmp_path, heeds_if_range):
    new = FILE[::-1]

    def careless(request):
        del request.headers["If-Range"]
        ranged(new, ETag='"2"')(request)

    url = site.on("/a.zip", short(1000, ETag='"1"'), ranged(new, ETag='"2"') if heeds_if_range else careless)
    assert download(Remote("a.zip", (url,)), tmp_path, **QUICK).read_bytes() == new


def test_a_file_of_another_length_is_begun_anew(site, tmp_path):
    new = FILE[::-1] + b"more"
    url = site.on("/a.zip", short(1000), ranged(new))
    assert download(Remote("a.zip", (url,)), tmp_path, **QUICK).read_bytes() == new
    assert site.ranges() == [None, "bytes=1000-", None]


def test_an_unsatisfiable_range_starts_from_the_first_byte(site, tmp_path):
    (tmp_path / "a.zip.part").write_bytes(FILE + b"too much")
    url = site.on("/a.zip", ranged())
    assert download(Remote("a.zip", (url,), HASH), tmp_path, **QUICK).read_bytes() == FILE
    assert site.ranges() == [f"bytes={len(FILE) + 8}-", None]


def test_a_part_without_notes_is_continued_only_where_a_hash_can_tell(site, tmp_path):
    url = site.on("/a.zip", ranged())
    (tmp_path / "a.zip.part").write_bytes(FILE[:500])
    assert download(Remote("a.zip", (url,)), tmp_path, **QUICK).read_bytes() == FILE
    (tmp_path / "b.zip.part").write_bytes(FILE[:500])
    (tmp_path / "b.zip.part.json").write_text("{damaged")
    assert download(Remote("b.zip", (url,), HASH), tmp_path, **QUICK).read_bytes() == FILE
    assert site.ranges() == [None, "bytes=500-"]


def test_a_wrong_first_half_is_not_held_against_the_server(site, tmp_path):
    (tmp_path / "a.zip.part").write_bytes(b"something else")
    url = site.on("/a.zip", ranged())
    assert download(Remote("a.zip", (url,), HASH), tmp_path, attempts=1, **QUICK).read_bytes() == FILE
    assert names(tmp_path) == ["a.zip"]


def test_another_address_is_not_asked_for_the_rest_of_an_unproven_part(site, tmp_path):
    first, second = site.on("/1", short(1000)), site.on("/2", ranged(FILE[::-1]))
    remote = Remote("a.zip", (first, second))
    assert download(remote, tmp_path, attempts=1, **QUICK).read_bytes() == FILE[::-1]


def test_a_part_that_was_complete_takes_its_place_without_a_request(site, tmp_path):
    (tmp_path / "a.zip.part").write_bytes(FILE)
    (tmp_path / "a.zip.part.json").write_text(json.dumps({"url": "x", "total": len(FILE)}))
    download(Remote("a.zip", (site.url("/a.zip"),), HASH), tmp_path, **QUICK)
    assert (names(tmp_path), site.asked) == (["a.zip"], [])


def test_an_answer_of_a_part_that_nobody_asked_for_is_refused(site, tmp_path):
    url = site.on("/a.zip", whole(FILE[:10], status=206, Content_Range="bytes 5-14/300"))
    with pytest.raises(NetworkError, match=r"a\.zip: answered 206 to a plain request; check the connection"):
        download(Remote("a.zip", (url,)), tmp_path, **QUICK)


# --- what goes wrong at the server ---


def test_a_body_that_stays_short_fails_with_both_lengths_and_keeps_the_part(site, tmp_path):
    url = site.on("/a.zip", short(1000))
    message = rf"^http://127\.0\.0\.1:\d+/a\.zip: ended after 1000 of {len(FILE)} bytes; check the connection"
    with pytest.raises(NetworkError, match=message):
        download(Remote("a.zip", (url,), HASH), tmp_path, **QUICK)
    assert len(site.asked) == 3
    assert names(tmp_path) == ["a.zip.part", "a.zip.part.json"]


def test_a_wrong_hash_names_both_and_moves_the_file_aside(site, tmp_path):
    url = site.on("/a.zip", whole(b"not it"))
    found = hashlib.sha256(b"not it").hexdigest()
    with pytest.raises(NetworkError) as caught:
        download(Remote("a.zip", (url,), HASH), tmp_path, **QUICK)
    assert str(caught.value) == (
        f"{url}: sent a.zip with sha-256 {found[:12]} instead of {HASH[:12]}; "
        "try again later, or look at a.zip.bad and mend the expected hash if it is right"
    )
    assert names(tmp_path) == ["a.zip.bad"]
    assert caught.value.exit_code == 6


def test_a_missing_file_goes_straight_to_the_next_address(site, tmp_path):
    urls = (site.on("/1", not_found), site.on("/2", whole(b"<html>")), site.on("/3", whole(b"wrong")))
    remote = Remote("a.zip", (*urls, site.on("/4", whole())), HASH)
    assert download(remote, tmp_path, **QUICK).read_bytes() == FILE
    assert [path for path, _ in site.asked] == ["/1", "/2", "/3", "/4"]


def test_a_failing_server_is_asked_again(site, tmp_path):
    url = site.on("/a.zip", status(500), status(503), whole())
    assert download(Remote("a.zip", (url,)), tmp_path, **QUICK).read_bytes() == FILE


@pytest.mark.parametrize(
    ("code", "reason", "times"),
    [
        (401, r"asks for a password \(401\)", 1),
        (403, r"does not give the file \(403\)", 1),
        (404, r"has no such file \(404\)", 1),
        (410, r"has no such file any more \(410\)", 1),
        (418, "answered 418", 1),
        (304, "answered 304", 1),
        (429, r"has had too many requests \(429\)", 3),
        (503, "answered 503", 3),
    ],
)
def test_a_refusal_is_told_with_its_number(site, tmp_path, code, reason, times):
    url = site.on("/a.zip", status(code))
    with pytest.raises(NetworkError, match=rf"/a\.zip: {reason}; check the connection, or try again later$"):
        download(Remote("a.zip", (url,)), tmp_path, **QUICK)
    assert len(site.asked) == times


def test_every_address_is_named_when_none_gives_the_file(site, tmp_path):
    urls = (site.on("/1?key=secret", not_found), site.on("/2", short(7)))
    with pytest.raises(NetworkError) as caught:
        download(Remote("a.zip", urls), tmp_path, **QUICK)
    assert str(caught.value) == (
        f"a.zip: none of 2 addresses gave it ({site.url('/1')}: has no such file (404), "
        f"{urls[1]}: ended after 7 of {len(FILE)} bytes); check the connection, or try again later"
    )


@pytest.mark.parametrize("page", [b"<!DOCTYPE html><p>", b" \n<HTML>", b"\xef\xbb\xbf<html>"])
def test_a_web_page_is_not_taken_for_a_file(site, tmp_path, page):
    url = site.on("/a.gz", whole(page))
    with pytest.raises(NetworkError, match=r"/a\.gz: sent a web page, not a file; open the address in a brow"):
        download(Remote("a.gz", (url,)), tmp_path, **QUICK)
    assert [path for path in names(tmp_path) if not path.endswith(".json")] == []


def test_an_empty_answer_is_not_taken_for_a_file(site, tmp_path):
    url = site.on("/a.gz", whole(b""))
    with pytest.raises(NetworkError, match=r"/a\.gz: sent an empty file; open the address"):
        download(Remote("a.gz", (url,)), tmp_path, **QUICK)


@pytest.mark.parametrize(
    "location",
    [
        "file:///etc/passwd",
        "ftp://127.0.0.1/x",
        "http://example.invalid/x",
        "data:,x",
        "https://[/",
        "//a b/",
    ],
)
def test_a_redirect_to_anything_unsafe_is_refused(site, tmp_path, location):
    url = site.on("/a.zip", status(302, Location=location))
    message = rf"/a\.zip: redirects to {re.escape(location)}, which is not a safe https address; look for an"
    with pytest.raises(NetworkError, match=message):
        download(Remote("a.zip", (url,)), tmp_path, **QUICK)
    assert names(tmp_path) == []


def test_a_redirect_loop_ends(site, tmp_path):
    url = site.on("/a.zip", status(301, Location="/a.zip"))
    with pytest.raises(NetworkError, match=r"/a\.zip: redirects more than 10 times; check the connection"):
        download(Remote("a.zip", (url,)), tmp_path, **QUICK)
    assert len(site.asked) == 11


def test_a_redirect_without_a_place_is_a_refusal(site, tmp_path):
    url = site.on("/a.zip", status(302))
    with pytest.raises(NetworkError, match="answered 302"):
        download(Remote("a.zip", (url,)), tmp_path, **QUICK)


@pytest.mark.parametrize("first", ["", "HTTP/1.1 200 OK\r\nX: "])
def test_a_server_that_never_ends_its_headers_is_given_up(site, tmp_path, first):
    def answer(request):
        request.wfile.write(first.encode())
        while not site.closing.wait(0.01 if first else 60):
            request.wfile.write(b"x")

    url = site.on("/a.zip", answer)
    begun = time.monotonic()
    with pytest.raises(NetworkError, match=r"/a\.zip: no answer within 0\.2 s; check the connection"):
        download(Remote("a.zip", (url,)), tmp_path, **(QUICK | {"timeout": 0.2}))
    assert time.monotonic() - begun < 20
    assert len(site.asked) == 1


def test_a_server_that_falls_silent_in_the_body_is_asked_for_the_rest_and_then_given_up(site, tmp_path):
    url = site.on("/a.zip", silent(site, count=1000))
    with pytest.raises(NetworkError, match=r"no answer within 0\.1 s"):
        download(Remote("a.zip", (url,)), tmp_path, **(QUICK | {"timeout": 0.1}))
    assert site.ranges() == [None, "bytes=1000-", "bytes=1000-"]


def test_a_server_that_drips_is_given_up(site, tmp_path):
    url = site.on("/a.zip", silent(site, count=1, pause=0.02))
    with pytest.raises(NetworkError, match=r"/a\.zip: sent \d+ bytes in 0\.\d s; check the connection"):
        download(Remote("a.zip", (url,)), tmp_path, attempts=1, **(QUICK | {"timeout": 0.2}))


@pytest.mark.parametrize("answer", [b"nonsense\r\n\r\n", b"", b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 200])
def test_an_answer_that_is_no_http_is_a_network_error(site, tmp_path, answer):
    url = site.on("/a.zip", lambda request: request.wfile.write(answer))
    with pytest.raises(NetworkError, match=r"/a\.zip: the connection broke \(.+\); check the connection"):
        download(Remote("a.zip", (url,)), tmp_path, **QUICK)


# --- no network ---


def test_a_refused_connection_is_told_at_once_and_not_tried_again(tmp_path):
    url = f"https://127.0.0.1:{refused_port()}/a.zip"
    begun = time.monotonic()
    with pytest.raises(NetworkError, match=r"a\.zip: the connection was refused; check the connection"):
        download(Remote("a.zip", (url,)), tmp_path, pause=90.0)
    assert time.monotonic() - begun < 60


def test_a_name_that_is_not_found_is_looked_up_once_for_each_address(tmp_path, monkeypatch):
    asked = []

    def no_network(host, *_, **__):
        asked.append(host)
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", no_network)
    urls = ("https://one.example/a.zip", "https://two.example/a.zip")
    with pytest.raises(NetworkError, match=r"one.example/a.zip: the host's name cannot be found, https://two"):
        download(Remote("a.zip", urls), tmp_path, pause=5.0)
    assert asked == ["one.example", "two.example"]


def test_a_name_look_up_that_hangs_is_given_up(tmp_path, monkeypatch):
    end = threading.Event()

    def hang(*_, **__):
        end.wait(10)
        raise socket.gaierror(socket.EAI_NONAME, "too late")

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    monkeypatch.setattr(module, "CONNECT", 0.1)
    with pytest.raises(NetworkError, match=r"one.example/a.zip: no answer within 0\.1 s"):
        download(Remote("a.zip", ("https://one.example/a.zip",)), tmp_path)
    end.set()


def test_an_unreachable_network_is_told_at_once(tmp_path, monkeypatch):
    def unreachable(*_, **__):
        raise OSError(errno.ENETUNREACH, "Network is unreachable")

    monkeypatch.setattr(socket, "getaddrinfo", unreachable)
    with pytest.raises(NetworkError, match=r"the connection broke \(network is unreachable\)"):
        download(Remote("a.zip", ("https://one.example/a.zip",)), tmp_path, pause=60.0)


def test_the_proxy_of_the_environment_is_used_with_its_password(site, tmp_path, monkeypatch):
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.setenv("https_proxy", f"http://me:pass%20word@127.0.0.1:{site.port}")
    site.on("one.example:443", status(403))
    with pytest.raises(NetworkError, match=r"one.example/a.zip: the connection broke \(tunnel .*403"):
        download(Remote("a.zip", ("https://one.example/a.zip",)), tmp_path, pause=0.001, attempts=1)
    headers = site.asked[0][1]
    assert headers["Proxy-Authorization"] == "Basic " + base64.b64encode(b"me:pass word").decode()


def test_an_unusable_proxy_is_named(tmp_path, monkeypatch):
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.setenv("https_proxy", "http://proxy:port")
    with pytest.raises(NetworkError, match=r"a\.zip: the proxy of the environment is unusable"):
        download(Remote("a.zip", ("https://one.example/a.zip",)), tmp_path)


# --- https ---


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    openssl = shutil.which("openssl")
    if not openssl:
        pytest.skip("openssl makes the certificate")
    folder = tmp_path_factory.mktemp("certificate")
    made = ["-keyout", folder / "key.pem", "-out", folder / "certificate.pem", "-days", "1", "-nodes"]
    kind = ["-x509", "-newkey", "rsa:2048", "-subj", "/CN=loopback", "-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run([openssl, "req", *kind, *made], check=True, capture_output=True)
    return folder


@pytest.fixture
def secure_site(certificate):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate / "certificate.pem", certificate / "key.pem")
    site = Site(context)
    yield site
    site.close()


def test_an_invalid_certificate_is_refused_without_another_try(secure_site, tmp_path):
    url = secure_site.on("/a.zip", whole())
    with pytest.raises(NetworkError, match=r"a\.zip: its certificate is not valid \(self.signed certificate\);"):
        download(Remote("a.zip", (url,)), tmp_path, pause=60.0, allow_http=True)
    assert (secure_site.asked, names(tmp_path)) == ([], [])


def test_https_works_and_never_goes_on_to_http(secure_site, certificate, site, tmp_path, monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate / "certificate.pem"))
    url = secure_site.on("/a.zip", short(1000), ranged())
    assert download(Remote("a.zip", (url,), HASH), tmp_path, pause=0.001).read_bytes() == FILE
    url = secure_site.on("/b.zip", status(302, Location=site.on("/b.zip", whole())))
    with pytest.raises(NetworkError, match="which is not a safe https address"):
        download(Remote("b.zip", (url,)), tmp_path, allow_http=True)
    assert site.asked == []


def test_https_to_a_server_that_speaks_http_fails(site, tmp_path):
    url = site.on("/a.zip", whole()).replace("http", "https")
    with pytest.raises(NetworkError, match=r"the connection broke \(\[ssl"):
        download(Remote("a.zip", (url,)), tmp_path, **QUICK)


# --- what is asked for ---


@pytest.mark.parametrize("url", ["data/faces.zip", "file:///data/faces.zip", "C:\\faces.zip", "d://faces", ""])
def test_a_path_is_not_an_address(tmp_path, url):
    message = re.escape(f"{url}: this is not an https address; for a local file give its path as data.source")
    with pytest.raises(GantoolError, match=message) as caught:
        download(Remote("a.zip", (url,)), tmp_path)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("url", ["ftp://example.com/a", "s3://bucket/a"])
def test_other_schemes_are_not_supported(url):
    with pytest.raises(GantoolError, match=f"{url}: {url[:3].strip(':')}.* not supported; give an https addr"):
        checked_url(url)


@pytest.mark.parametrize(
    "url",
    ["https:///a", "https://a b/", "https://h:port/", "https://[::1/", "https://a..b/", "https://u:p@h/"],
)
def test_an_address_needs_a_plain_host(url):
    with pytest.raises(GantoolError, match=r"'.*' is not a host; write https://HOST/PATH") as caught:
        checked_url(url)
    assert "p@" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "allowed"),
    [
        ("http://example.com/a", True),
        ("http://127.0.0.1/a", False),
        ("http://localhost.example.com/a", True),
        ("http://127.0.0.1.example.com/a", True),
    ],
)
def test_http_is_refused_beyond_this_machine(tmp_path, url, allowed):
    message = f"^{url}: http can be read and changed on the way; give an https address$"
    with pytest.raises(NetworkError, match=message):
        download(Remote("a.zip", (url,)), tmp_path, allow_http=allowed)


def test_an_address_is_shown_without_what_may_be_secret():
    assert shown("https://me:word@host/a?key=1#x") == "https://host/a"
    assert shown("https://host/a\nb") == "https://host/a b"


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a\\b", "../a", "a\0", "C:a", "a\nb", "a.", "x..y"])
def test_a_name_that_is_not_plain_is_refused(tmp_path, name):
    message = f"^{re.escape(repr(name))}: this is not a plain file name; name the download without any folder$"
    with pytest.raises(GantoolError, match=message):
        download(Remote(name, ("https://example.com/a",)), tmp_path / "folder")
    assert names(tmp_path) == []


def test_a_name_that_is_too_long_is_refused(tmp_path):
    with pytest.raises(GantoolError, match=r"가…: this is a file name of 300 bytes; use at most 200$"):
        download(Remote("가" * 100, ("https://example.com/a",)), tmp_path)


def test_a_remote_without_an_address_is_refused(tmp_path):
    with pytest.raises(GantoolError, match=r"a\.zip: there is no address to download it from; name at least one"):
        download(Remote("a.zip", ()), tmp_path)


# --- disk ---


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EFBIG, errno.EDQUOT])
def test_a_full_disk_is_told_as_such(number, tmp_path):
    with (
        pytest.raises(ResourceError, match=r"a: the disk is full; free some space and start again") as caught,
        disk(Path("a")),
    ):
        raise OSError(number, "full")
    assert caught.value.exit_code == 7


def test_a_folder_that_cannot_be_made_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ResourceError, match=r"below: cannot be written or read \(.+\); choose another folder"):
        download(Remote("a.zip", ("https://example.com/a",)), tmp_path / "file" / "below")


def child(code, *arguments, **options):
    code = "import sys, time\nfrom pathlib import Path\nfrom gantool.data.download import *\n" + code
    root = Path(module.__file__).parents[2]
    environment = os.environ | {"PYTHONPATH": str(root)}
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment, **options)


FETCH = "print(download(Remote('a.zip', (sys.argv[1],), sys.argv[3]), Path(sys.argv[2]), allow_http=True))\n"


@posix
def test_a_disk_that_fills_up_keeps_the_part(site, tmp_path):
    limit = "import resource\nresource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
    catch = "try:\n    " + FETCH + "except ResourceError as error:\n    print(error)\n"
    with child(limit + catch, site.on("/a.zip", ranged()), tmp_path, HASH) as process:
        output = process.communicate(timeout=20)[0]
    assert output == f"{tmp_path}/a.zip.part: the disk is full; free some space and start again\n"
    kept = (tmp_path / "a.zip.part").stat().st_size
    assert 0 < kept <= 100_000
    assert download(Remote("a.zip", (site.url("/a.zip"),), HASH), tmp_path, **QUICK).read_bytes() == FILE
    assert site.ranges() == [None, f"bytes={kept}-"]


# --- other processes ---


@posix
def test_a_killed_download_is_continued_by_the_next(site, tmp_path):
    url = site.on("/a.zip", silent(site, count=200_000), ranged())
    with child(FETCH, url, tmp_path, HASH) as process:
        wait_until(lambda: size(tmp_path / "a.zip.part") >= 100_000)
        process.send_signal(signal.SIGKILL)
    assert "a.zip" not in names(tmp_path)
    assert "a.zip.lock" in names(tmp_path)
    kept = size(tmp_path / "a.zip.part")
    assert download(Remote("a.zip", (url,), HASH), tmp_path, **QUICK).read_bytes() == FILE
    assert site.ranges() == [None, f"bytes={kept}-"]
    assert names(tmp_path) == ["a.zip"]


def size(path):
    return path.stat().st_size if path.exists() else 0


def wait_until(condition):
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


def test_two_processes_fetch_one_file_once(site, tmp_path):
    both_there = threading.Event()

    def slow(request):
        send(request, FILE[:1000], length=len(FILE))
        both_there.wait(10)
        request.wfile.write(FILE[1000:])

    url = site.on("/a.zip", slow)
    ready = "print('ready', flush=True)\n"
    with child(ready + FETCH, url, tmp_path, HASH) as one, child(ready + FETCH, url, tmp_path, HASH) as two:
        for process in (one, two):
            assert process.stdout.readline() == "ready\n"
        time.sleep(0.1)
        both_there.set()
        outputs = [process.communicate(timeout=20)[0] for process in (one, two)]
    assert outputs == [f"{tmp_path / 'a.zip'}\n"] * 2
    assert (len(site.asked), names(tmp_path)) == (1, ["a.zip"])


def test_many_threads_fetch_one_file_once(site, tmp_path):
    remote = Remote("a.zip", (site.on("/a.zip", whole()),), HASH)
    results = []
    work = [threading.Thread(target=lambda: results.append(download(remote, tmp_path, **QUICK))) for _ in range(8)]
    for thread in work:
        thread.start()
    for thread in work:
        thread.join()
    assert results == [tmp_path / "a.zip"] * 8
    assert (len(site.asked), names(tmp_path)) == (1, ["a.zip"])


def test_a_process_that_does_not_end_its_download_is_named(site, tmp_path):
    url = site.on("/a.zip", silent(site, count=200_000))
    with child(FETCH, url, tmp_path, HASH) as process:
        wait_until(lambda: size(tmp_path / "a.zip.part") > 0)
        message = re.escape(
            f"{tmp_path / 'a.zip'}: process {process.pid} on {socket.gethostname()} still downloads it; "
            "wait for it, or end it"
        )
        with pytest.raises(ResourceError, match=f"^{message}$"):
            download(Remote("a.zip", (url,), HASH), tmp_path, wait=0.1, **QUICK)
        process.kill()
    assert len(site.asked) == 1


def test_a_lock_that_cannot_be_written_is_told(site, tmp_path):
    (tmp_path / "a.zip.lock").mkdir()
    with pytest.raises(ResourceError, match=r"a\.zip\.lock: cannot be written \(.+\); check the folder and its perm"):
        download(Remote("a.zip", (site.url("/a.zip"),)), tmp_path, **QUICK)


@pytest.mark.parametrize("failure", [KeyboardInterrupt, GantoolError])
def test_the_lock_is_given_back_whatever_happens(site, tmp_path, failure):
    def stop(*_):
        raise failure

    with pytest.raises(failure):
        download(Remote("a.zip", (site.on("/a.zip", whole()),)), tmp_path, progress=stop, **QUICK)
    assert "a.zip.lock" not in names(tmp_path)
    assert "a.zip" not in names(tmp_path)
