import numpy as np
import pytest
from hypothesis import given

from tests.strategies import ORIENTATIONS, affine_of, volumes
from vocodata.fingerprint import CELLS, fingerprint, parse_fingerprint, voxel_digest
from vocodata.foreground import crop
from vocodata.geometry import Box, Size, Spacing, Volume, orient_ras
from vocodata.resampling import resample


def body(seed, spacing_mm=(6, 6, 2.5)):
    """A made-up trunk of tissue, bone and air whose width changes along z."""
    rng = np.random.default_rng(seed)
    x, y, z = np.meshgrid(*[np.linspace(-1, 1, n) for n in (60, 50, 64)], indexing="ij")
    width = 0.55 + 0.3 * np.sin(rng.uniform(1, 5) * z + rng.uniform(0, 6))
    data = np.where(x**2 + 1.4 * y**2 < width, 40.0, -1000.0)
    for _ in range(5):
        cx, cy, cz = rng.uniform(-0.6, 0.6, 3)
        data[(x - cx) ** 2 + (y - cy) ** 2 + (z - cz) ** 2 < 0.05] = rng.uniform(-200, 300)
    noisy = data + rng.normal(0, 15, data.shape)
    return Volume(noisy.astype(np.int16), np.diag([*spacing_mm, 1.0]))


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


def test_another_packing_of_one_scan_has_nearly_the_same_fingerprint_and_another_scan_not():
    one = body(1)
    repacked = resample(resample(one, Spacing(5.1, 5.1, 2.1)), one.spacing_mm)
    clipped = Volume(np.clip(one.data_XYZ, -200, 300), one.affine)
    first, again, cut, other = (
        parse_fingerprint(fingerprint(v)) for v in (one, repacked, clipped, body(2))
    )

    def apart(a, b):
        return np.abs(a.thumbnail_XYZ.astype(int) - b.thumbnail_XYZ).mean()

    assert apart(first, again) < 5
    assert apart(first, cut) == 0
    assert apart(first, other) > 15


def test_a_scan_cut_in_z_is_a_stretch_of_the_others_profile():
    whole = body(3)
    part = crop(whole, Box(Size(3, 2, 16), Size(55, 46, 32)))
    long, short = (parse_fingerprint(fingerprint(volume)).profile for volume in (whole, part))
    assert (long.size, short.size) == (16, 8)
    assert np.abs(long[4:12].astype(int) - short).max() <= 1
    assert np.ptp(long) > 3


def test_the_parts_of_a_fingerprint_come_back():
    flat = Volume(np.full((5, 30, 20), 50, np.int16), np.diag([10.0, 10, 10, 1]))
    got = parse_fingerprint(fingerprint(flat))
    assert got.thumbnail_XYZ.shape == (CELLS,) * 3
    assert np.unique(got.thumbnail_XYZ).tolist() == [128]
    # 5 x 30 voxels of 100 mm2, half of the window: 7500 mm2 = 15 units of 5 cm2.
    assert got.profile.tolist() == [15] * 20


def test_a_text_that_is_no_fingerprint_is_refused():
    with pytest.raises(ValueError, match="expected v1"):
        parse_fingerprint("v0:AAAA:AAAA")
