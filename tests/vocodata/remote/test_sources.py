"""Sources in buckets and on web servers give the stores that the same files give from a disk."""

import json
import pickle
import shutil
import tarfile
import zipfile

import numpy as np
import pytest

from tests.vocodata.conftest import write_sources
from tests.vocodata.dicom_series import dataset
from tests.vocodata.packing import contents, pack, write_zip
from vococli.main import main
from vocodata.archives.parts import find_parts
from vocodata.building import build
from vocodata.discover import find_scans
from vocodata.errors import ManifestError, RemoteError
from vocodata.forecast import forecast_build
from vocodata.initial import first_manifest, guess_sources
from vocodata.job import ScanJob, run_job
from vocodata.manifest import load_manifest
from vocodata.remote import as_path, objects
from vocodata.store import open_store


def _manifest(folder, root, **keys):
    row = {"name": "btcv", "preset": "abdomen", "licence": "CC-BY-4.0"} | keys
    path = folder / "remote.yaml"
    path.write_text(json.dumps({"version": 1, "sources": [row | {"root": str(root)}]}))
    return path


def _shards(report):
    return {
        path.relative_to(report.store).as_posix(): path.read_bytes()
        for path in sorted(report.store.rglob("c.0.0.0"))
    }


GLOB = {
    "layout": "glob",
    "images": "images/*.nii.gz",
    "labels": "labels/{id}.nii.gz",
    "label_names": {2: "marker"},
}


@pytest.fixture
def local(tmp_path):
    """A local source of two scans with labels, and the store it gives."""
    manifest = write_sources(tmp_path, 2, labels=True)
    return tmp_path / "sources/btcv", build(manifest, tmp_path / "local.zarr", workers=0)


@pytest.fixture
def keeps_scratch_clean(tmp_path):
    """After the test, no scratch lies beside any store."""
    yield
    assert [path for path in tmp_path.iterdir() if ".tmp-" in path.name] == []


@pytest.mark.usefixtures("keeps_scratch_clean")
def test_a_bucket_gives_the_store_that_its_files_give(tmp_path, local, upload):
    folder, report = local
    url = upload(folder, "deep/btcv/")
    manifest = _manifest(tmp_path, url, **GLOB)
    remote = build(manifest, tmp_path / "ct.zarr", workers=0)
    assert (remote.stored, remote.excluded) == (2, {})
    assert remote.digest == report.digest
    assert _shards(remote) == _shards(report)
    again = build(manifest, tmp_path / "ct.zarr", workers=0, resume=True)
    assert again.skipped_done == 2


def test_a_changed_object_is_built_anew(tmp_path, local, upload, s3):
    url = upload(local[0])
    manifest = _manifest(tmp_path, url, **GLOB)
    before = build(manifest, tmp_path / "ct.zarr", workers=0)
    other = (local[0] / "images/case0.nii.gz").read_bytes()
    s3.put_object(Bucket=s3.bucket, Key="images/case1.nii.gz", Body=other)
    after = build(manifest, tmp_path / "ct.zarr", workers=0, resume=True)
    assert after.skipped_done == 1
    assert after.digest != before.digest


@pytest.mark.slow
def test_workers_of_their_own_reach_a_bucket(tmp_path, local, upload):
    manifest = _manifest(tmp_path, upload(local[0]), **GLOB)
    assert build(manifest, tmp_path / "ct.zarr", workers=1).digest == local[1].digest


@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz"])
def test_an_archive_in_a_bucket_is_read_in_place(tmp_path, local, upload, kind):
    packed = tmp_path / "packed"
    packed.mkdir()
    shutil.make_archive(packed / "btcv", kind.replace("tar.gz", "gztar"), local[0])
    url = upload(packed)
    manifest = _manifest(tmp_path, f"{url}/btcv.{kind}", **GLOB)
    assert build(manifest, tmp_path / "ct.zarr", workers=0).digest == local[1].digest


def test_parts_of_an_archive_in_a_bucket_are_joined(tmp_path, local, upload):
    packed = tmp_path / "packed"
    packed.mkdir()
    whole = tmp_path / "x.zip"
    with zipfile.ZipFile(whole, "w") as file:
        for path in sorted(local[0].rglob("*.nii.gz")):
            file.write(path, path.relative_to(local[0]))
    data = whole.read_bytes()
    for number in range(3):
        part = data[number * len(data) // 3 : (number + 1) * len(data) // 3]
        (packed / f"x.zip.00{number + 1}").write_bytes(part)
    manifest = _manifest(tmp_path, f"{upload(packed)}/x.zip", **GLOB)
    assert build(manifest, tmp_path / "ct.zarr", workers=0).digest == local[1].digest


def test_dicom_series_of_a_bucket_are_told_apart(tmp_path, upload):
    folder = tmp_path / "dicom/case"
    folder.mkdir(parents=True)
    x, y, z = np.indices((24, 22, 16))
    body = ((x - 12) ** 2 + (y - 11) ** 2 < 64) & (z > 1) & (z < 15)
    hu = np.where(body, 40 + x, -1000).astype(np.int16)
    for n in range(32):
        slice_ = dataset(hu[:, :, n // 2].T + n % 2, (-10, 20, 2.0 * n), f"1.2.3.4.5.{n % 2}")
        slice_.PixelSpacing = [4, 4]
        slice_.save_as(folder / f"{n}.dcm", enforce_file_format=True)
    (folder / "notes.txt").write_text("no image")
    url = upload(tmp_path / "dicom")
    rows = {"layout": "dicom", "preset": "demo", "licence": None}
    remote = build(_manifest(tmp_path, url, **rows), tmp_path / "r.zarr", workers=0)
    on_disk = build(_manifest(tmp_path, tmp_path / "dicom", **rows), tmp_path / "l.zarr", workers=0)
    assert (remote.stored, remote.excluded) == (2, {})
    assert sorted(_shards(remote).values()) == sorted(_shards(on_disk).values())


def test_a_series_in_two_folders_of_a_bucket_is_put_together(tmp_path, upload):
    x, y, z = np.indices((24, 22, 16))
    body = ((x - 12) ** 2 + (y - 11) ** 2 < 64) & (z > 1) & (z < 15)
    hu = np.where(body, 40 + x, -1000).astype(np.int16)
    for n in range(16):
        slice_ = dataset(hu[:, :, n].T, (-10, 20, 4.0 * n), "1.2.3.4.5", PixelSpacing=[4, 4])
        folder = tmp_path / f"dicom/case/part{n % 2}"
        folder.mkdir(parents=True, exist_ok=True)
        slice_.save_as(folder / f"{n // 2}.dcm", enforce_file_format=True)
    rows = {"preset": "demo", "licence": None}
    url = upload(tmp_path / "dicom")
    remote = build(_manifest(tmp_path, url, **rows), tmp_path / "r.zarr", workers=0)
    on_disk = build(_manifest(tmp_path, tmp_path / "dicom", **rows), tmp_path / "l.zarr", workers=0)
    assert (remote.found, remote.stored) == (1, 1)
    assert list(_shards(remote).values()) == list(_shards(on_disk).values())


def test_a_slice_that_never_arrived_whole_is_missed_in_a_bucket_as_on_a_disk(tmp_path, upload):
    folder = tmp_path / "dicom/case"
    folder.mkdir(parents=True)
    hu = np.full((22, 24), 40, np.int16)
    for series, n in np.ndindex(2, 8):
        slice_ = dataset(hu + n, (-10, 20, 2.0 * n), f"1.2.3.4.5.{series}")
        slice_.save_as(folder / f"{series}-{n}.dcm", enforce_file_format=True)
    (folder / "1-8.dcm").write_bytes(b"<html>404</html>")
    url = upload(tmp_path / "dicom")
    rows = {"layout": "dicom", "preset": "demo", "licence": None}
    remote = build(_manifest(tmp_path, url, **rows), tmp_path / "r.zarr", workers=0)
    on_disk = build(_manifest(tmp_path, tmp_path / "dicom", **rows), tmp_path / "l.zarr", workers=0)
    assert on_disk.excluded
    assert (remote.found, remote.excluded) == (on_disk.found, on_disk.excluded)


def test_a_manifest_for_a_bucket_is_written_by_a_look_at_it(tmp_path, local, upload):
    url = upload(local[0], "sets/btcv/")
    (guess,) = guess_sources(as_path(url))
    assert (guess.count, guess.labelled) == (2, 2)
    text = first_manifest([guess], folder=tmp_path)
    assert url in text
    (tmp_path / "m.yaml").write_text(text)
    forecast = forecast_build(load_manifest(tmp_path / "m.yaml"), tmp_path / "ct.zarr")
    assert (forecast.scans, forecast.headers_read, forecast.unreadable) == (2, 2, {})
    assert forecast.bytes > 1000


def test_endpoint_and_anonymous_of_the_manifest_need_nothing_of_the_environment(
    tmp_path, local, upload, s3, s3_server, monkeypatch
):
    url = upload(local[0])
    for item in s3.list_objects_v2(Bucket=s3.bucket)["Contents"]:
        s3.put_object_acl(Bucket=s3.bucket, Key=item["Key"], ACL="public-read")
    for name in ("ENDPOINT_URL", "ACCESS_KEY_ID", "SECRET_ACCESS_KEY", "DEFAULT_REGION"):
        monkeypatch.delenv(f"AWS_{name}")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    with pytest.raises(RemoteError, match="Unable to locate credentials") as caught:
        find_scans(load_manifest(_manifest(tmp_path, url, endpoint=s3_server, **GLOB)))
    assert caught.value.exit_code == 4
    manifest = _manifest(tmp_path, url, endpoint=s3_server, anonymous=True, **GLOB)
    (first, _) = find_scans(load_manifest(manifest))
    job = pickle.loads(pickle.dumps(ScanJob(first, "", tmp_path / "x.zarr", "zstd")))
    done = run_job(job)
    assert done.reason == "", done.detail
    assert done.row.digest == open_store(local[1].store).info(first.id).digest


def test_the_commands_take_urls(tmp_path, local, upload, s3, monkeypatch, capsys):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    url, out = upload(local[0], "sets/btcv/"), f"s3://{s3.bucket}/ct.zarr"
    manifest = str(tmp_path / "m.yaml")
    assert main(["data", "init", url, "--out", manifest]) == 0
    assert main(["data", "plan", "--sources", manifest, "--out", out]) == 0
    assert " free" not in capsys.readouterr().out
    assert main(["data", "build", "--sources", manifest, "--out", out, "--workers", "0"]) == 0
    assert f"store     {out}" in capsys.readouterr().out
    for words in (["status"], ["verify", "--deep"], ["stats"]):
        assert main(["data", words[0], out, *words[1:], "--json"]) == 0
    assert main(["info", out, "--json"]) == 0
    assert capsys.readouterr().out.count(out) >= 3
    assert list(tmp_path.glob("s3:*")) == []


def test_a_first_manifest_says_what_it_leaves_out_of_a_url(tmp_path, local, web):
    shutil.make_archive(web.folder / "btcv", "zip", local[0])
    (guess,) = guess_sources(as_path(f"{web.url}/btcv.zip?sig=c0ffee"))
    text = first_manifest([guess], folder=tmp_path)
    assert "c0ffee" not in text
    assert "Put the URL's user and query back" in text
    assert guess.count == 2


def test_a_plan_fetches_the_beginnings_of_files_only(tmp_path, upload, monkeypatch):
    import nibabel as nib

    rng = np.random.default_rng(1)
    noise = rng.integers(-1000, 1000, (80, 80, 40)).astype(np.int16)
    (tmp_path / "big").mkdir()
    nib.save(nib.Nifti1Image(noise, np.eye(4)), tmp_path / "big/a.nii.gz")
    assert (tmp_path / "big/a.nii.gz").stat().st_size > 200_000
    manifest = load_manifest(_manifest(tmp_path, upload(tmp_path / "big"), layout="auto"))
    taken = []
    read = objects.read
    monkeypatch.setattr(objects, "read", lambda *a: taken.append(len(data := read(*a))) or data)
    monkeypatch.delattr(objects, "save")
    assert forecast_build(manifest, tmp_path / "ct.zarr").unreadable == {}
    assert sum(taken) == 1 << 16


LIST = {"training": [
    {"image": f"images/case{n}.nii.gz", "label": f"labels/case{n}.nii.gz"} for n in range(2)
]}  # fmt: skip


@pytest.mark.usefixtures("keeps_scratch_clean")
@pytest.mark.parametrize("by", ["list here", "list there", "dataset.json"])
def test_a_web_server_gives_the_store_that_its_files_give(tmp_path, local, web, by):
    shutil.copytree(local[0], web.folder / "a b/btcv")
    keys = {"label_names": {2: "marker"}, "layout": "datalist", "scans": "list.json"}
    place = {
        "list here": tmp_path,
        "list there": web.folder,
        "dataset.json": web.folder / "a b/btcv",
    }
    name = "dataset.json" if by == "dataset.json" else "list.json"
    (place[by] / name).write_text(json.dumps(LIST))
    if by == "list there":
        keys["scans"] = f"{web.url}/list.json"
    if by == "dataset.json":
        keys = {"label_names": {2: "marker"}, "layout": "msd"}
    remote = build(
        _manifest(tmp_path, f"{web.url}/a b/btcv/", **keys), tmp_path / "ct.zarr", workers=0
    )
    assert (remote.stored, remote.excluded) == (2, {})
    strip = {path.replace("images-", ""): data for path, data in _shards(remote).items()}
    assert strip == _shards(local[1])


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_an_archive_on_a_web_server_is_read_by_ranges(tmp_path, local, web, kind):
    shutil.make_archive(web.folder / "btcv", kind, local[0])
    manifest = _manifest(tmp_path, f"{web.url}/btcv.{kind}", **GLOB)
    assert build(manifest, tmp_path / "ct.zarr", workers=0).digest == local[1].digest


def test_an_archive_needs_a_server_that_gives_ranges(tmp_path, local, web):
    shutil.make_archive(web.folder / "btcv", "zip", local[0])
    web.knows_ranges = False
    with pytest.raises(RemoteError, match="gives files as a whole only") as caught:
        find_scans(load_manifest(_manifest(tmp_path, f"{web.url}/btcv.zip", **GLOB)))
    assert caught.value.exit_code == 4


@pytest.mark.parametrize("layout", [GLOB, {"layout": "auto"}, {"layout": "nnunet"}])
def test_a_pattern_on_a_web_server_is_refused_with_what_to_do(tmp_path, web, layout):
    manifest = load_manifest(_manifest(tmp_path, f"{web.url}/btcv/", **layout))
    with pytest.raises(ManifestError, match="a web server, which has no list") as caught:
        find_scans(manifest)
    assert "layout: datalist with the key scans" in caught.value.detail


def test_what_a_server_lacks_or_changed_is_excluded_by_name(tmp_path, local, web):
    shutil.copytree(local[0] / "images", web.folder / "images")
    shutil.copy(web.folder / "images/case0.nii.gz", web.folder / "images/gone.nii.gz")
    items = [f"images/{name}.nii.gz" for name in ("case0", "case1", "case2", "gone")]
    (tmp_path / "list.json").write_text(json.dumps({"training": items}))
    manifest = load_manifest(_manifest(tmp_path, web.url, layout="datalist", scans="list.json"))
    scans = find_scans(manifest)
    with (web.folder / "images/case1.nii.gz").open("ab") as file:
        file.write(b"more")
    (web.folder / "images/gone.nii.gz").unlink()
    got = [run_job(ScanJob(scan, "", tmp_path / "x.zarr", "zstd")) for scan in scans]
    assert [outcome.reason for outcome in got] == [
        "", "source_changed", "file_missing", "file_missing",
    ]  # fmt: skip
    assert "is not there any more" in got[3].detail
    assert not any("127.0.0.1" in outcome.detail for outcome in got)
    report = build(manifest, tmp_path / "ct.zarr", workers=0)
    assert report.found == report.stored + sum(report.excluded.values()) == 4


def test_a_list_that_leads_out_of_a_web_servers_root_finds_nothing_there(tmp_path, local, web):
    shutil.copytree(local[0] / "images", web.folder / "inner")
    shutil.copy(web.folder / "inner/case0.nii.gz", web.folder / "secret.nii.gz")
    images = [{"image": "case0.nii.gz"}, {"image": "../secret.nii.gz"}]
    (tmp_path / "list.json").write_text(json.dumps({"training": images}))
    keys = {"layout": "datalist", "scans": "list.json"}
    report = build(_manifest(tmp_path, f"{web.url}/inner/", **keys), tmp_path / "s", workers=0)
    assert (report.found, report.stored) == (2, 1)
    assert "/secret.nii.gz" not in web.count


def test_a_compressed_tar_holds_its_own_list(tmp_path, local):
    (local[0] / "dataset.json").write_text(json.dumps(LIST))
    with tarfile.open(tmp_path / "btcv.tar.gz", "w:gz") as file:
        file.add(local[0], ".")
    keys = {"layout": "msd", "label_names": {2: "marker"}}
    report = build(
        _manifest(tmp_path, tmp_path / "btcv.tar.gz", **keys), tmp_path / "ct.zarr", workers=0
    )
    assert (report.stored, report.excluded) == (2, {})


@pytest.mark.parametrize("kind", ["zip.001", "tar.001", "z01"])
def test_parts_of_an_archive_on_a_web_server_are_asked_for_by_name(tmp_path, local, web, kind):
    root = pack(contents(local[0]), web.folder, kind)
    for name in {root.name, root.name.removesuffix(".001")}:
        manifest = _manifest(tmp_path, f"{web.url}/{name}", **GLOB)
        assert build(manifest, tmp_path / f"{name}.zarr", workers=0).digest == local[1].digest


def test_a_part_that_a_web_server_does_not_have_is_named(tmp_path, local, web):
    root = pack(contents(local[0]), web.folder, "zip.001")
    manifest = load_manifest(_manifest(tmp_path, f"{web.url}/{root.name}", **GLOB))
    root.with_name("all.zip.003").unlink()
    with pytest.raises(ManifestError, match=r"all\.zip: part 3 is missing of parts 1 to 5"):
        find_scans(manifest)
    root.unlink()
    with pytest.raises(ManifestError, match=r"all\.zip: part 1 is missing of parts 1 to 5"):
        find_scans(manifest)


def test_more_parts_than_are_asked_for_at_once_are_all_found(web):
    for number in range(1, 2 * objects.AT_ONCE + 2):
        (web.folder / f"x.tar.{number:03}").write_bytes(b"x")
    ((_, parts),) = find_parts(as_path(f"{web.url}/x.tar"))
    assert [part.name for part in parts] == [f"x.tar.{n:03}" for n in range(1, 34)]


@pytest.mark.parametrize("kind", ["zip", "tar", "zip.001", "z01"])
def test_other_names_that_are_forbidden_forbid_no_archive(tmp_path, local, web, kind):
    root = pack(contents(local[0]), web.folder, kind)
    there = {f"/{path.name}" for path in web.folder.iterdir()}
    web.forbids = lambda path: path not in there
    manifest = _manifest(tmp_path, f"{web.url}/{root.name}?sig=c0ffee", **GLOB)
    assert build(manifest, tmp_path / "ct.zarr", workers=0).digest == local[1].digest


def test_a_zip_that_says_it_is_the_last_of_very_many_is_refused(web):
    path = write_zip(web.folder / "x.zip", {"a.nii": b"1"})
    data = bytearray(path.read_bytes())
    # The number of this disk, in the record at the end.
    data[-18:-16] = (65_000).to_bytes(2, "little")
    path.write_bytes(data)
    with pytest.raises(ManifestError, match=r"says that 65000 parts come before it"):
        find_parts(as_path(f"{web.url}/x.zip"))
    assert len(web.seen) < 5


@pytest.mark.parametrize("kind", ["zip.001", "tar.001"])
@pytest.mark.parametrize("parts", [1, 3])
def test_parts_that_may_not_be_read_lose_no_scan_silently(tmp_path, web, local, kind, parts):
    root = pack(contents(local[0]), web.folder, kind)
    web.forbids = lambda path: int(path[-1]) > parts
    manifest = _manifest(tmp_path, f"{web.url}/{root.name}?sig=c0ffee", **GLOB)
    with pytest.raises(ManifestError, match=r"ends within .* expected more|a part is missing"):
        find_scans(load_manifest(manifest))


def test_parts_may_begin_with_0_and_few_requests_find_them(tmp_path, web, local):
    root = pack(contents(local[0]), web.folder, "tar.001")
    parts = sorted(web.folder.iterdir())
    for number, path in enumerate(parts):
        path.rename(path.with_name(f"all.tar.{number:03}"))
    for name in ("all.tar", root.name, "all.tar.000"):
        ((_, found),) = find_parts(as_path(f"{web.url}/{name}"))
        assert [path.name for path in found] == [f"all.tar.{n:03}" for n in range(5)]
    pack(contents(local[0]), web.folder, "zip")
    web.seen.clear()
    find_scans(load_manifest(_manifest(tmp_path, f"{web.url}/all.zip", **GLOB)))
    assert len(web.seen) < 12


def test_an_archive_that_is_forbidden_is_told_so(tmp_path, web):
    web.forbids = lambda _: True
    for name in ("x.zip", "x.zip.001"):
        with pytest.raises(RemoteError, match=r"does not allow to look at it \(HTTP 403\)"):
            find_scans(load_manifest(_manifest(tmp_path, f"{web.url}/{name}", **GLOB)))


def test_a_server_that_answers_to_any_name_is_not_asked_for_ever(tmp_path, local, web):
    root = pack(contents(local[0]), web.folder, "zip")
    (web.folder / "page.html").write_text("Welcome.")
    web.instead = "page.html"
    manifest = _manifest(tmp_path, f"{web.url}/{root.name}", **GLOB)
    assert build(manifest, tmp_path / "ct.zarr", workers=0).digest == local[1].digest
    with pytest.raises(ManifestError, match=r"answers to more than 1000 names of parts"):
        find_parts(as_path(f"{web.url}/{root.name}.001"))
