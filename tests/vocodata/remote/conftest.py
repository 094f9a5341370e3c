"""Servers on loopback: a real S3 one, and a web server that can be told to fail."""

import contextlib
import hashlib
import http.server
import logging
import pathlib
import threading
import urllib.parse
from collections import Counter

import boto3
import moto.server
import pytest

from vocodata.remote import backoff


@pytest.fixture(autouse=True)
def waits(monkeypatch):
    """No waiting in tests; the waits that would have been."""
    made = []
    monkeypatch.setattr(backoff.time, "sleep", made.append)
    return made


@pytest.fixture(scope="session")
def s3_server():
    """Address of an S3 server."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = moto.server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def s3(s3_server, monkeypatch, request):
    """A client, the environment that finds the server, and one new bucket as `client.bucket`."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_server)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.delenv("AWS_PROFILE", raising=False)
    client = boto3.client("s3", endpoint_url=s3_server)
    client.bucket = f"b{hashlib.sha256(request.node.nodeid.encode()).hexdigest()[:20]}"
    client.create_bucket(Bucket=client.bucket)
    yield client
    client.close()


@pytest.fixture
def upload(s3):
    """A function that puts all files below a folder into the bucket; gives their URL."""

    def put(folder, prefix=""):
        for path in sorted(pathlib.Path(folder).rglob("*")):
            if path.is_file():
                key = f"{prefix}{path.relative_to(folder).as_posix()}"
                s3.put_object(Bucket=s3.bucket, Key=key, Body=path.read_bytes())
        return f"s3://{s3.bucket}/{prefix}".rstrip("/")

    return put


class Handler(http.server.BaseHTTPRequestHandler):
    """Files of `server.folder` by GET, with ranges.

    `server.faults` are answered first; whole answers end early after so many bytes as
    `server.cuts` says, those of ranges as `server.range_cuts`.
    """

    def do_GET(self):
        path, _, query = self.path.partition("?")
        self.server.seen.append((path, query, self.headers.get("Authorization")))
        self.server.count[path] += 1
        if self.server.faults:
            fault = self.server.faults.pop(0)
            if fault == "reset":
                return
            if fault != 200:
                self.send_error(fault)
                return
        if self.server.forbids(path):
            self.send_error(403)
            return
        file = self.server.folder / urllib.parse.unquote(path).lstrip("/")
        if self.server.instead and not file.is_file():
            file = self.server.folder / self.server.instead
        if not file.is_file():
            self.send_error(404)
            return
        self._send(file.read_bytes())

    def _send(self, data):
        stretch = self.headers.get("Range", "").removeprefix("bytes=")
        cuts = self.server.range_cuts
        if not stretch or not self.server.knows_ranges:
            cuts = self.server.cuts
            self.send_response(200)
        else:
            start, stop = stretch.split("-")
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {stretch}/{len(data)}")
            data = data[int(start) : int(stop) + 1 if stop else None]
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        cut = cuts.pop(0) if cuts else None
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.wfile.write(data[:cut])
        if cut is not None:
            self.close_connection = True

    def log_message(self, *_):
        pass


@pytest.fixture
def web(tmp_path):
    """A web server of the folder `web.folder`, at `web.url`."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.folder = tmp_path / "www"
    server.folder.mkdir()
    server.faults, server.seen, server.count = [], [], Counter()
    server.forbids, server.instead = lambda _: False, None
    server.cuts, server.range_cuts = [], []
    server.knows_ranges = True
    server.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()
