"""Servers that fail: what passes is tried again, what does not is excluded or ends the build."""

import http.client
import http.server
import json
import logging
import os
import pathlib
import shutil
import sys
import threading
import urllib.parse
from types import SimpleNamespace

import pytest

from tests.vocodata.conftest import write_sources
from vococli.main import main
from vocodata.building import build
from vocodata.discover import find_scans
from vocodata.errors import RemoteError, StoreError
from vocodata.manifest import load_manifest
from vocodata.remote import as_path, backoff, objects, s3
from vocodata.remote.scratch import scratch_path
from vocodata.store import open_store


class Proxy(http.server.BaseHTTPRequestHandler):
    """Passes requests on, after those faults that `server.fault_of` gives for them."""

    # So that it answers Expect: 100-continue, without which a client does not send its body.
    protocol_version = "HTTP/1.1"

    def _pass(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        fault = self.server.fault_of(self.command, self.path)
        self.close_connection = True
        if fault == "reset":
            return
        if fault:
            self._answer(fault[0], {}, f"<Error><Code>{fault[1]}</Code></Error>".encode())
            return
        there = http.client.HTTPConnection(*self.server.there, timeout=10)
        headers = {name: value for name, value in self.headers.items() if name != "Expect"}
        there.request(self.command, self.path, body, headers)
        answer = there.getresponse()
        self._answer(answer.status, dict(answer.getheaders()), answer.read())
        there.close()

    def _answer(self, status, headers, data):
        self.send_response(status)
        for name, value in headers.items():
            if name.lower() not in {"transfer-encoding", "content-length", "connection", "date"}:
                self.send_header(name, value)
        length = headers.get("Content-Length") if self.command == "HEAD" else len(data)
        self.send_header("Content-Length", str(length or 0))
        self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = _pass  # noqa: N815 (http.server's names)

    def log_message(self, *_):
        pass


@pytest.fixture
def flaky(s3, s3_server, monkeypatch, tmp_path):  # noqa: ARG001 (the server behind)
    """A proxy before the S3 server; `flaky.fault_of` may be set."""
    address = urllib.parse.urlsplit(s3_server)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Proxy)
    server.there, server.fault_of = (address.hostname, address.port), lambda *_: None
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def _manifest(folder, root, **keys):
    row = {"name": "btcv", "preset": "abdomen", "layout": "glob", "images": "images/*.nii.gz"}
    path = folder / "remote.yaml"
    path.write_text(json.dumps({"version": 1, "sources": [row | keys | {"root": root}]}))
    return path


@pytest.mark.parametrize("fault", [(503, "SlowDown"), (500, "InternalError"), "reset"])
def test_each_request_may_fail_once_from_source_to_store(tmp_path, upload, flaky, waits, fault):
    local = build(write_sources(tmp_path, 1), tmp_path / "l.zarr", workers=0)
    url = upload(tmp_path / "sources/btcv", "src/")
    failed = {}

    def fault_of(*request):
        failed[request] = failed.get(request, 0) + 1
        return fault if failed[request] == 1 else None

    flaky.fault_of = fault_of
    manifest = _manifest(tmp_path, url, licence="CC-BY-4.0")
    report = build(manifest, f"{url.removesuffix('/src')}/out/ct.zarr", workers=0)
    assert (report.digest, report.excluded) == (local.digest, {})
    # What is cut off once, aiohttp asks for again by itself.
    assert len(waits) > 10 or fault == "reset"


def test_a_scan_that_cannot_be_fetched_is_excluded_and_tried_again_on_resume(
    tmp_path, upload, flaky, waits
):
    write_sources(tmp_path, 3)
    url = upload(tmp_path / "sources/btcv")
    flaky.fault_of = lambda method, path: (
        (503, "SlowDown") if method == "GET" and "case1" in path else None
    )
    manifest = _manifest(tmp_path, url)
    report = build(manifest, tmp_path / "ct.zarr", workers=0)
    assert (report.found, report.stored, report.excluded) == (3, 2, {"source_unreachable": 1})
    (row,) = report.excluded_rows
    assert "btcv/case1: the server does not let us read it after 6 attempts" in row.detail
    assert "s3://" not in row.detail
    # Its header is asked for, then all of it.
    assert len(waits) == 2 * (backoff.ATTEMPTS - 1)
    flaky.fault_of = lambda *_: None
    again = build(manifest, tmp_path / "ct.zarr", workers=0, resume=True)
    assert (again.stored, again.skipped_done) == (3, 2)


@pytest.mark.parametrize("what", ["list", "look at"])
def test_what_is_forbidden_is_asked_once_and_ends_with_exit_code_4(
    tmp_path, flaky, s3, waits, capsys, what
):
    flaky.fault_of = lambda method, _: (
        (403, "AccessDenied") if what == "list" or method == "HEAD" else None
    )
    manifest = _manifest(tmp_path, f"s3://{s3.bucket}/closed")
    code = main(["data", "build", "--sources", str(manifest), "--out", str(tmp_path / "ct.zarr")])
    told = capsys.readouterr().err
    assert code == 4
    assert (
        f"Source 'btcv': s3://{s3.bucket}/closed: the server does not allow to look at it" in told
    )
    assert "AWS_PROFILE" in told
    assert "anonymous: true" in told
    assert waits == []
    assert not (tmp_path / "ct.zarr").exists()


def test_a_forbidden_listing_says_so(flaky, s3):
    flaky.fault_of = lambda *_: (403, "AccessDenied")
    with pytest.raises(RemoteError, match="does not allow to list it") as caught:
        objects.listing(as_path(f"s3://{s3.bucket}/closed"))
    assert caught.value.exit_code == 4


def test_a_store_whose_server_goes_away_ends_the_build_and_goes_on(tmp_path, flaky, s3):
    manifest = write_sources(tmp_path, 2)
    flaky.fault_of = lambda method, path: (
        (503, "SlowDown") if method == "PUT" and "case1" in path else None
    )
    out = f"s3://{s3.bucket}/ct.zarr"
    code = main(["data", "build", "--sources", str(manifest), "--out", out, "--workers", "0"])
    assert code == 4
    flaky.fault_of = lambda *_: None
    assert build(manifest, out, workers=0, resume=True).skipped_done == 1
    assert open_store(out).ids() == ["btcv/case0", "btcv/case1"]


def test_a_server_that_is_not_there_is_asked_a_few_times(tmp_path, flaky, s3, waits):
    flaky.shutdown()
    flaky.server_close()
    with pytest.raises(RemoteError, match=r"after 6 attempts \(Endpoint.*Could not connect"):
        find_scans(load_manifest(_manifest(tmp_path, f"s3://{s3.bucket}/a")))
    assert len(waits) == backoff.ATTEMPTS - 1


def test_a_web_server_may_fail_for_a_while(tmp_path, web, waits):
    write_sources(tmp_path, 1)
    shutil.copytree(tmp_path / "sources/btcv", web.folder / "btcv")
    (tmp_path / "list.json").write_text(json.dumps({"training": ["images/case0.nii.gz"]}))
    manifest = _manifest(
        tmp_path, f"{web.url}/btcv", layout="datalist", scans="list.json", images=None
    )
    (scan,) = find_scans(load_manifest(manifest))
    web.faults, web.cuts = [503, "reset", 429], [1000]
    report = build(manifest, tmp_path / "ct.zarr", workers=0)
    assert report.stored == 1
    assert len(waits) == 4
    assert scan.packed.image[0].size == (web.folder / "btcv/images/case0.nii.gz").stat().st_size


def test_an_answer_that_ends_early_is_asked_for_again(web, waits):
    (web.folder / "a").write_bytes(bytes(range(200)))
    path = as_path(f"{web.url}/a")
    web.range_cuts, web.cuts = [10, 0], [10]
    assert objects.read(path, 20, 120) == bytes(range(20, 120))
    assert len(waits) == 2
    assert objects.read(path) == bytes(range(200))
    assert len(waits) == 3


def test_without_its_library_a_bucket_is_refused_with_what_to_install(
    tmp_path, monkeypatch, capsys
):
    s3._system.cache_clear()
    monkeypatch.setitem(sys.modules, "s3fs", None)
    manifest = _manifest(tmp_path, "s3://bucket/a")
    code = main(["data", "build", "--sources", str(manifest), "--out", str(tmp_path / "ct.zarr")])
    assert code == 4
    assert "pip install 'voco-toolkit[cloud]'" in capsys.readouterr().err


def test_what_a_web_server_cannot_do_is_refused():
    path = as_path("https://host.invalid/a")
    with pytest.raises(RemoteError, match="has no list of its files"):
        objects.listing(path)
    for action in (lambda: objects.put(path, b""), lambda: objects.remove([path])):
        with pytest.raises(RemoteError, match="a web server is read only"):
            action()


def test_an_object_that_is_not_there_is_no_file(s3):
    path = as_path(f"s3://{s3.bucket}/none")
    assert not path.exists()
    for action in (path.stat, path.read_bytes, lambda: path.open("rb")):
        with pytest.raises(FileNotFoundError):
            action()
    path.unlink()


SECRETS = ("hunter2", "Zebulon", "c0ffee")


def test_no_secret_of_a_url_is_told_anywhere(tmp_path, web, caplog, capsys):
    caplog.set_level(logging.DEBUG)
    write_sources(tmp_path, 3)
    shutil.make_archive(web.folder / "btcv", "zip", tmp_path / "sources/btcv")
    host = web.url.removeprefix("http://")
    url = f"http://Zebulon:hunter2@{host}/btcv.zip?X-Amz-Signature=c0ffee"
    manifest = _manifest(tmp_path, url)
    scans = find_scans(load_manifest(manifest))
    report = build(manifest, tmp_path / "ct.zarr", workers=0)
    assert report.stored == 3
    assert {query for _, query, _ in web.seen} == {"X-Amz-Signature=c0ffee"}
    assert all(user.startswith("Basic ") for _, _, user in web.seen)
    (web.folder / "btcv.zip").unlink()
    for faults in ([403] * 9, [500] * 99):
        web.faults = faults
        assert main(["data", "plan", "--sources", str(manifest)]) != 0
    texts = [repr(scans), str(report), caplog.text, *capsys.readouterr()]
    written = [tmp_path / "ct.zarr.ledger.sqlite", *report.store.rglob("*")]
    texts += [path.read_bytes().decode("latin-1") for path in written if path.is_file()]
    texts += [str(path) for path in written]
    assert not [secret for secret in SECRETS for text in texts if secret in text]


def test_what_a_killed_worker_left_is_swept_before_the_next_scan(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    store = as_path("s3://bucket/ct.zarr")
    mine = scratch_path(store)
    mine.mkdir()
    dead = mine.with_name("scan.tmp-4194999-0123abcd")
    dead.mkdir()
    (dead / "scan.nii.gz").touch()
    other = scratch_path(store)
    assert mine.exists()
    assert not dead.exists()
    assert other.parent == mine.parent
    assert mine.parent.stat().st_mode & 0o777 == 0o700
    assert scratch_path(pathlib.Path("/data/ct.zarr")).parent == pathlib.Path("/data")


def test_a_scratch_folder_that_others_can_look_into_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    folder = scratch_path(as_path("s3://bucket/ct.zarr")).parent
    folder.chmod(0o755)
    with pytest.raises(StoreError, match="not a folder of this user alone"):
        scratch_path(as_path("s3://bucket/ct.zarr"))
    folder.rmdir()
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    folder.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StoreError, match="not a folder of this user alone"):
        scratch_path(as_path("s3://bucket/ct.zarr"))


def test_machines_that_share_a_disk_sweep_their_own_scratch_only(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    places = set()
    for machine in ("one", "two"):
        monkeypatch.setattr(os, "uname", lambda machine=machine: SimpleNamespace(nodename=machine))
        places.add(scratch_path(as_path("s3://bucket/ct.zarr")).parent)
    assert len(places) == 2
