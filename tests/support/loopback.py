"""A server on this machine that answers as a test wants it, and the answers of good, broken and hostile servers."""

from __future__ import annotations

import contextlib
import http.server
import re
import subprocess
import threading

FILE = bytes(range(256)) * 1200  # 300 KiB


class Site:
    """A loopback server; `answers` maps a path to what handles a request for it."""

    def __init__(self, context=None):
        site = self
        self.answers, self.requests, self.closing = {}, [], threading.Event()

        class Handler(http.server.BaseHTTPRequestHandler):
            closing = self.closing

            def do_GET(self):
                site.requests.append((self.path, dict(self.headers)))
                with contextlib.suppress(OSError):
                    site.answers.get(self.path, status(404))(self)

            do_CONNECT = do_GET  # noqa: N815

            def log_message(self, *_):
                pass

        class Server(http.server.ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_):
                pass

        self.server = Server(("127.0.0.1", 0), Handler)
        self.scheme, self.port = "https" if context else "http", self.server.server_address[1]
        if context:
            wrapped = context.wrap_socket(self.server.socket, server_side=True, do_handshake_on_connect=False)
            self.server.socket = wrapped
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True)
        self.thread.start()

    def on(self, path, *handlers):
        """Answer the first request with the first handler and so on; the last one stays."""
        queue = list(handlers)
        self.answers[path] = lambda request: (queue.pop(0) if len(queue) > 1 else queue[0])(request)
        return f"{self.scheme}://127.0.0.1:{self.port}{path}"

    def ranges(self):
        return [headers.get("Range") for _, headers in self.requests]

    def close(self):
        self.closing.set()
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


def send(request, body, status=200, length=None, headers=()):
    request.send_response(status)
    length = len(body) if length is None else length
    for name, value in {**({"Content-Length": str(length)} if length >= 0 else {}), **dict(headers)}.items():
        request.send_header(name, value)
    request.end_headers()
    request.wfile.write(body)


def whole(body=FILE, **options):
    return lambda request: send(request, body, **options)


def status(code, **headers):
    return lambda request: send(request, b"<html>sorry</html>", code, headers=headers)


def short(count):
    """Promise everything and stop after `count` bytes."""
    return lambda request: send(request, FILE[:count], length=len(FILE))


def raw(data):
    return lambda request: request.wfile.write(data)


def slow(seconds):
    """Send the whole file after a pause."""
    return lambda request: request.closing.wait(seconds) or send(request, FILE)


def ranged(body=FILE):
    """Serve as a server does that supports Range."""

    def answer(request):
        span = re.fullmatch(r"bytes=(\d+)-", request.headers.get("Range", ""))
        if not span:
            return send(request, body)
        start = int(span[1])
        if start >= len(body):
            return send(request, b"", 416, headers={"Content-Range": f"bytes */{len(body)}"})
        span = f"bytes {start}-{len(body) - 1}/{len(body)}"
        return send(request, body[start:], 206, headers={"Content-Range": span})

    return answer


def stuck(count=0, pause=60.0, begin=b""):
    """Send `begin`, or `count` bytes of the file, then nothing or, with a pause, one byte after another."""

    def answer(request):
        request.wfile.write(begin)
        if count:
            send(request, FILE[:count], length=len(FILE))
        while not request.closing.wait(pause):
            request.wfile.write(b"x")

    return answer


def certificate(folder):
    """Write a key and a certificate without a signature, and return their paths."""
    paths = folder / "certificate.pem", folder / "key.pem"
    made = ["-out", paths[0], "-keyout", paths[1], "-days", "1", "-nodes"]
    kind = ["-x509", "-newkey", "rsa:2048", "-subj", "/CN=loopback", "-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run(["openssl", "req", *kind, *made], check=True, capture_output=True)
    return paths
