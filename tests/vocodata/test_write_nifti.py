"""Label files keep values, shape and place."""

import nibabel
import numpy as np
import pytest

from vocodata.write_nifti import write_labels

OBLIQUE = np.array(
    [[-0.69, 0.05, 0.0, 101.5], [0.05, 0.69, 0.1, -20.25], [0.0, -0.03, 2.5, 7.0], [0, 0, 0, 1]]
)


@pytest.mark.parametrize("name", ["seg.nii", "seg.nii.gz"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_labels_come_back_with_their_place(tmp_path, name, order):
    labels = np.array(np.arange(24).reshape(2, 3, 4), np.uint8, order=order)
    path = write_labels(tmp_path / "new" / name, labels, OBLIQUE)
    back = nibabel.load(path)
    np.testing.assert_array_equal(np.asarray(back.dataobj), labels)
    assert back.get_data_dtype() == np.uint8
    np.testing.assert_allclose(back.affine, OBLIQUE, atol=1e-5)
    assert int(back.header["sform_code"]) == int(back.header["qform_code"]) == 1
    assert [file.name for file in path.parent.iterdir()] == [name]


def test_another_ending_is_refused(tmp_path):
    with pytest.raises(
        ValueError, match=r"'seg\.mha'; expected a name ending in \.nii or \.nii\.gz"
    ):
        write_labels(tmp_path / "seg.mha", np.zeros((1, 1, 1), np.uint8), np.eye(4))


def test_values_that_are_no_labels_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"are float32; expected uint8 or uint16"):
        write_labels(tmp_path / "seg.nii", np.zeros((1, 1, 1), np.float32), np.eye(4))
    assert list(tmp_path.iterdir()) == []
