"""URLs that behave as paths."""

import copy
import os
import pickle
from pathlib import Path

import pytest

from vocodata.remote import RemotePath, as_path, is_url, redacted


def test_parts_of_a_url_are_those_of_a_path():
    path = as_path("s3://bucket/a/b.nii.gz")
    assert isinstance(path, RemotePath)
    assert (str(path), path.name, path.host, path.key) == (
        "s3://bucket/a/b.nii.gz", "b.nii.gz", "bucket", "a/b.nii.gz",
    )  # fmt: skip
    assert str(path.parent / "c") == "s3://bucket/a/c"
    assert str(path.with_name("d")) == "s3://bucket/a/d"
    assert path.relative_to(as_path("s3://bucket")).as_posix() == "a/b.nii.gz"
    assert str((path / "../x").plain()) == "s3://bucket/a/x"
    assert path.absolute() == path.resolve() == path.expanduser() == path


def test_how_a_server_is_reached_goes_with_every_path_made_of_it_and_is_not_shown():
    root = as_path("https://me:secret@host:8443/a/?sig=x%2Fy&z=1")
    for path in (root, root / "b", (root / "b").parent, pickle.loads(pickle.dumps(root))):
        assert (path.access.user, path.access.query) == ("me:secret", "sig=x%2Fy&z=1")
        assert "secret" not in f"{path} {path!r} {path.access} {path.as_posix()}"
        assert str(path).startswith("https://host:8443/a")
    assert copy.deepcopy(root) == root
    bucket = as_path("s3://b/c").reached(anonymous=True, endpoint="http://127.0.0.1:9000")
    assert ((bucket / "d").access.anonymous, (bucket / "d").access.endpoint) == (
        "1", "http://127.0.0.1:9000",
    )  # fmt: skip
    assert str(bucket / "d") == "s3://b/c/d"


def test_a_url_that_went_through_a_path_is_one_still():
    assert str(as_path(Path("s3://bucket/ct.zarr"))) == "s3://bucket/ct.zarr"
    # As typer hands it on.
    assert as_path(Path("file:///data/a")) == Path("/data/a")
    assert as_path("file:///data/a") == as_path(Path("/data/a")) == Path("/data/a")
    assert not is_url("a:b/c")


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("ftp://host/a", "ftp:// is not read"),
        ("s3://b/a?x=1", "holds no user and no query"),
        ("https://host/a#2.zip", "write %23"),
    ],
)
def test_a_url_that_cannot_be_reached_is_refused(url, told):
    with pytest.raises(ValueError, match=told):
        as_path(url)


def test_a_key_of_a_bucket_may_hold_any_sign_of_a_name():
    assert as_path("s3://bucket/data#2/a.nii").key == "data#2/a.nii"


def test_a_url_is_no_name_of_a_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = as_path("s3://bucket/a")
    for action in (os.fspath, os.mkdir, RemotePath.touch, RemotePath.rmdir):
        with pytest.raises(TypeError, match="s3://bucket/a is not on a disk"):
            action(path)
    path.mkdir(parents=True)
    assert list(tmp_path.iterdir()) == []


def test_secrets_are_taken_out_of_any_text():
    text = "see https://u:p@h/a?X-Amz-Signature=s and 's3://b/k', or https://h/b?t=1."
    assert redacted(text) == "see https://***@h/a?*** and 's3://b/k', or https://h/b?***"
    assert redacted("why? no url") == "why? no url"
