import numpy as np
import pytest
from hypothesis import given

from tests.strategies import ORIENTATIONS, affine_of, volumes
from tests.vocodata.bodies import body
from vocodata.census import take_census
from vocodata.fingerprint import fingerprint, parse_fingerprint, voxel_digest
from vocodata.geometry import Volume, orient_ras
from vocodata.landmarks import WINDOW_HU, cell_means, find_landmarks


@given(volumes())
def test_the_digest_does_not_see_orientation_or_layout_in_memory(volume):
    turned = orient_ras(volume)
    packed = Volume(np.ascontiguousarray(turned.data_XYZ), turned.affine)
    assert voxel_digest(volume) == voxel_digest(turned) == voxel_digest(packed)


def test_the_digest_sees_one_hu_the_shape_and_the_kind():
    data = np.zeros((4, 4, 4), np.int16)
    changed = data.copy()
    changed[1, 2, 3] = 1
    volumes = [data, changed, data.reshape(2, 8, 4), data.astype(np.float32)]
    digests = {voxel_digest(Volume(each, np.eye(4))) for each in volumes}
    assert len(digests) == 4


def test_the_digest_sees_a_flip_of_the_patient_but_not_another_place():
    data = np.arange(8, dtype=np.int16).reshape(2, 2, 2)
    here = voxel_digest(Volume(data, np.eye(4)))
    assert here == voxel_digest(Volume(data, affine_of(ORIENTATIONS[0], (3, 3, 3), (9, 9, 9))))
    assert here != voxel_digest(Volume(data[::-1], np.eye(4)))


def test_the_parts_of_a_fingerprint_come_back():
    one = body(1)
    got, census = parse_fingerprint(fingerprint(one)), take_census(one)
    assert got.content_digest == census.content_digest
    assert np.array_equal(got.marks, census.marks)
    found = find_landmarks(one)
    assert np.allclose(got.landmarks.place_N3, found.place_N3, atol=0.051)
    kept = np.clip(found.contrast_N, -127 / 400, 127 / 400)
    assert np.allclose(got.landmarks.contrast_N, kept, atol=1 / 800 + 1e-6)
    assert np.allclose(got.landmarks.level_N, found.level_N, atol=0.003)


@pytest.mark.parametrize("text", ["v1:AAAA:AAAA", "v2:00:AAAA:AAAA"])
def test_a_text_that_is_no_fingerprint_is_refused(text):
    with pytest.raises(ValueError, match="expected v2"):
        parse_fingerprint(text)


def test_digests_are_those_of_earlier_versions():
    # A change here makes every store's digests meaningless: bump SCHEMA_VERSION with it.
    data = (np.arange(5 * 6 * 7, dtype=np.int64) ** 3 % 3000 - 1024).astype(np.int16)
    volume = Volume(data.reshape(5, 6, 7), np.diag([1.0, -2, 3, 1]))
    assert voxel_digest(volume)[:16] == "0a5fa157022c6505"
    assert take_census(volume).content_digest[:16] == "8c24f2d694def17f"


def test_the_last_voxels_of_a_row_of_cells_do_not_reach_into_the_first_of_the_next():
    data = np.full((24, 22, 16), WINDOW_HU[0], np.int16)
    data[:, -1, :] = WINDOW_HU[1]
    means = cell_means(Volume(data, np.diag([4.0, 4.0, 4.0, 1.0])))
    assert (means[:, :-1] == 0).all()
    assert np.allclose(means[:, -1], 0.2)
