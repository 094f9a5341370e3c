import subprocess
import sys

import pytest

from vocodata.errors import UnreadableScanError
from vocodata.readers import read_header, read_labels, read_volume


def refused(path, match, code, read=read_volume):
    with pytest.raises(UnreadableScanError, match=match) as caught:
        read(path)
    assert caught.value.code == code


@pytest.mark.parametrize("read", [read_volume, read_labels, read_header])
def test_a_path_with_nothing_there_is_refused(tmp_path, read):
    refused(tmp_path / "a.nii.gz", "is not there", "file_missing", read)


def test_a_folder_with_a_files_name_is_refused(tmp_path):
    (tmp_path / "a.nii.gz").mkdir()
    refused(tmp_path / "a.nii.gz", "folder with the name of a file", "folder_with_file_name")
    refused(tmp_path / "a.nii.gz", "half-unpacked", "folder_with_file_name", read_labels)


def test_an_empty_file_is_refused(tmp_path):
    (tmp_path / "a.nrrd").touch()
    refused(tmp_path / "a.nrrd", "has no bytes", "empty_file")


def test_another_format_is_refused(tmp_path):
    (tmp_path / "a.png").write_bytes(b"x")
    refused(tmp_path / "a.png", r"expected \.nii", "unknown_format")


def test_a_folder_is_no_label_file(tmp_path):
    refused(tmp_path, "expected labels as a NIfTI", "labels_unreadable", read_labels)


def test_no_format_library_is_imported_before_a_file_needs_it():
    code = (
        "import sys, vocodata.readers;"
        "print([m for m in ('nibabel', 'pydicom', 'SimpleITK', 'numba') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
