import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from monai.data import MetaTensor
from monai.transforms import Orientation
from monai.transforms import Resize as MonaiResize
from monai.transforms import Spacing as MonaiSpacing

from tests.strategies import ORIENTATIONS, affine_of, affines, rotation_of, spacings, volumes
from vocodata import resampling
from vocodata.geometry import Size, Spacing, Volume, orient_ras
from vocodata.resampling import grid_after, resample, resize, size_after

ROUNDING_HU = 0.51
# MONAI announces defaults that will change; nothing here relies on them.
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning:monai")


def monai(volume, spacing_mm, mode):
    tensor = MetaTensor(
        torch.from_numpy(np.ascontiguousarray(volume.data_XYZ).astype(np.float32))[None],
        affine=torch.from_numpy(np.array(volume.affine)),
    )
    space = MonaiSpacing(pixdim=tuple(spacing_mm), mode=mode, padding_mode="border")
    return space(Orientation("RAS", labels=None)(tensor))


def assume_monai_resamples(volume, spacing_mm):
    """MONAI leaves a volume as it is if its affine is within 0.001 of the one wanted; we do not.

    And where a size lies half-way between two, MONAI's is floating point noise.
    """
    turned = orient_ras(volume)
    steps = np.array(spacing_mm) / turned.spacing_mm
    assume(np.abs(np.array(turned.spacing_mm) - spacing_mm).max() > 0.01)
    assume((np.abs((np.array(turned.shape_XYZ) - 1) / steps % 1 - 0.5) > 1e-6).all())


def ball(size=(31, 26, 23), spacing_mm=(1, 1.3, 2)):
    """A smooth ball off the middle, with a bright corner: no two axes or ends alike."""
    x, y, z = np.meshgrid(
        *[np.arange(n) * s for n, s in zip(size, spacing_mm, strict=True)], indexing="ij"
    )
    distance = np.sqrt((x - 12) ** 2 + (y - 14) ** 2 + (z - 20) ** 2)
    data = np.clip(1000 - 90 * distance, -1000, 400).astype(np.int16)
    data[:6, :5, :3] = 900
    return data


def assert_same_up_to_a_tie(expected, got):
    """Sums in another order of axes may fall on the other side of a half: 1 HU, seldom."""
    difference = np.abs(expected.astype(int) - got)
    assert difference.max() <= 1
    assert (difference > 0).mean() < 0.01


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_all_48_orientations_give_the_same_volume(orientation):
    axes, signs = orientation
    in_ras = Volume(ball(), np.diag([1, 1.3, 2, 1]))
    turned = ball().transpose(axes)
    turned = turned[tuple(slice(None, None, sign) for sign in signs)]
    origin = [
        (in_ras.shape_XYZ[axis] - 1) * in_ras.spacing_mm[axis] if sign < 0 else 0
        for axis, sign in sorted(zip(axes, signs, strict=True))
    ]
    step = [in_ras.spacing_mm[axis] for axis in axes]
    as_stored = Volume(np.asfortranarray(turned), affine_of(orientation, step, origin))
    expected, got = (resample(volume, Spacing(1.7, 1.1, 1.9)) for volume in (in_ras, as_stored))
    assert_same_up_to_a_tie(expected.data_XYZ, got.data_XYZ)
    assert expected.affine == pytest.approx(got.affine)
    assert got.data_XYZ[0, 0, 0] == 900
    assert got.data_XYZ[-1, 0, 0] != 900


@given(volumes(), spacings)
def test_hu_are_those_of_monai_up_to_rounding(volume, spacing_mm):
    assume_monai_resamples(volume, spacing_mm)
    expected = monai(volume, spacing_mm, "bilinear")
    got = resample(volume, spacing_mm)
    assert got.data_XYZ.dtype == np.int16
    assert got.data_XYZ.shape == expected.shape[1:]
    assert np.abs(got.data_XYZ - expected[0].numpy()).max() <= ROUNDING_HU
    assert got.affine == pytest.approx(expected.affine.numpy())


@pytest.mark.parametrize(
    ("step_mm", "spacing_mm"),
    [
        ((0.703125, 0.703125, 2.5), (1.5, 1.5, 1.5)),
        ((0.68, 0.68, 1.0), (1.25, 1.25, 5.0)),
        ((3.0, 3.0, 3.0), (1.5, 1.5, 1.5)),
        ((0.9, 0.8, 5.0), (0.37, 1.9, 1.1)),
    ],
)
@pytest.mark.parametrize("angles", [(0, 0, 0), (0.1, -0.2, 0.05)])
def test_a_ball_comes_out_as_from_monai(step_mm, spacing_mm, angles):
    affine = affine_of(((0, 1, 2), (-1, 1, 1)), step_mm, (90, -40, 7), rotation_of(angles))
    volume = Volume(np.asfortranarray(ball()), affine)
    expected = monai(volume, spacing_mm, "bilinear")
    got = resample(volume, Spacing(*spacing_mm))
    assert got.data_XYZ.shape == expected.shape[1:]
    assert np.abs(got.data_XYZ - expected[0].numpy()).max() <= ROUNDING_HU


@given(volumes(dtype=np.uint8), spacings)
def test_labels_are_those_of_monai(volume, spacing_mm):
    assume_monai_resamples(volume, spacing_mm)
    expected = monai(volume, spacing_mm, "nearest")[0].numpy()
    got = resample(volume, spacing_mm, interpolation="nearest")
    assert got.data_XYZ.dtype == np.uint8
    assert np.array_equal(
        got.data_XYZ[~has_tie(volume, spacing_mm)], expected[~has_tie(volume, spacing_mm)]
    )


def has_tie(volume, spacing_mm):
    """Output voxels that lie half-way between two, where MONAI's answer is floating point noise."""
    turned = orient_ras(volume)
    ties = [
        np.abs((np.arange(n) * out / step) % 1 - 0.5) < 1e-6
        for n, out, step in zip(
            grid_after(volume.shape_XYZ, volume.affine, spacing_mm),
            spacing_mm,
            turned.spacing_mm,
            strict=True,
        )
    ]
    return ties[0][:, None, None] | ties[1][:, None] | ties[2]


def test_a_tie_between_labels_goes_to_the_even_voxel():
    labels = Volume(np.arange(7, dtype=np.uint8).reshape(7, 1, 1), np.eye(4))
    halves = resample(labels, Spacing(0.5, 1, 1), interpolation="nearest").data_XYZ.ravel()
    assert halves.tolist() == [0, 0, 1, 2, 2, 2, 3, 4, 4, 4, 5, 6, 6]


@given(volumes(), spacings)
def test_voxel_zero_stays_and_every_value_is_between_its_neighbours(volume, spacing_mm):
    turned, got = orient_ras(volume), resample(volume, spacing_mm)
    assert got.data_XYZ[0, 0, 0] == turned.data_XYZ[0, 0, 0]
    assert got.affine[:3, 3] == pytest.approx(turned.affine[:3, 3])
    assert got.spacing_mm == pytest.approx(spacing_mm)
    assert turned.data_XYZ.min() <= got.data_XYZ.min()
    assert got.data_XYZ.max() <= turned.data_XYZ.max()


def test_a_ramp_in_the_world_is_the_same_ramp_on_the_new_grid():
    affine = affine_of(
        ORIENTATIONS[29], (0.9, 1.4, 2.2), (5, -7, 11), rotation_of((0.2, 0.1, -0.3))
    )
    index = np.stack(np.meshgrid(*map(np.arange, (20, 18, 15)), indexing="ij"), axis=-1)
    direction = np.array([7.0, -11.0, 13.0])

    def ramp(volume_affine, voxels):
        return (voxels @ volume_affine[:3, :3].T + volume_affine[:3, 3]) @ direction

    volume = Volume(ramp(affine, index).astype(np.float32), affine)
    got = resample(volume, Spacing(1.3, 0.8, 1.7))
    inner = np.argwhere(np.ones([n - 1 for n in got.shape_XYZ]))
    expected = ramp(got.affine, inner)
    assert got.data_XYZ[tuple(inner.T)] == pytest.approx(expected, abs=0.05)


@given(affines)
def test_the_same_spacing_changes_no_voxel(affine):
    data = np.random.default_rng(1).integers(-1000, 1000, (7, 6, 5)).astype(np.int16)
    turned = orient_ras(Volume(data, affine))
    got = resample(turned, turned.spacing_mm)
    assert np.array_equal(got.data_XYZ, turned.data_XYZ)
    assert got.data_XYZ.transpose(2, 1, 0).flags.c_contiguous
    assert got.affine == pytest.approx(turned.affine, abs=1e-9)


@pytest.mark.parametrize("dtype", ["int16", "float32", "uint8", "int32"])
@pytest.mark.parametrize("noise", [0, 1e-12, 1e-4], ids=["none", "rounding", "real"])
def test_voxels_that_stay_where_they_are_come_out_as_if_interpolated(dtype, noise, monkeypatch):
    data = np.random.default_rng(1).integers(0, 255, (300, 6, 5)).astype(dtype)
    volume = Volume(data, np.diag([-1.5 * (1 + noise), 1.5, 1.5, 1]))
    kinds = ("linear", "nearest")
    got = [resample(volume, Spacing(1.5, 1.5, 1.5), interpolation=kind) for kind in kinds]
    monkeypatch.setattr(resampling, "_is_on_grid", lambda *_: False)
    for kind, one in zip(kinds, got, strict=True):
        other = resample(volume, Spacing(1.5, 1.5, 1.5), interpolation=kind)
        assert one.data_XYZ.dtype == other.data_XYZ.dtype
        assert np.array_equal(one.data_XYZ, other.data_XYZ)
        assert np.array_equal(one.affine, other.affine)


@given(volumes(), spacings)
def test_the_planned_size_is_the_size(volume, spacing_mm):
    planned = grid_after(volume.shape_XYZ, volume.affine, spacing_mm)
    assert planned == resample(volume, spacing_mm).shape_XYZ


def test_halves_are_rounded_up_below_zero_too():
    ramp = Volume(np.array([-3, -2, -1, 0, 1], np.int16).reshape(5, 1, 1), np.eye(4))
    got = resample(ramp, Spacing(0.5, 1, 1)).data_XYZ.ravel()
    assert got.tolist() == [-3, -2, -2, -1, -1, 0, 0, 1, 1]


def test_the_ends_of_int16_survive():
    data = np.array([-32768, 32767, 32767, -32768], np.int16).reshape(4, 1, 1)
    got = resample(Volume(data, np.eye(4)), Spacing(0.25, 1, 1)).data_XYZ
    assert (got.min(), got.max()) == (-32768, 32767)


def test_float_hu_stay_float():
    data = np.linspace(-1, 1, 27, dtype=np.float32).reshape(3, 3, 3)
    got = resample(Volume(data, np.eye(4)), Spacing(0.5, 0.5, 0.5))
    assert got.data_XYZ.dtype == np.float32
    assert got.data_XYZ[1, 0, 0] == pytest.approx((data[0, 0, 0] + data[1, 0, 0]) / 2)


def test_other_kinds_become_float():
    data = np.arange(8, dtype=np.int32).reshape(2, 2, 2)
    assert resample(Volume(data, np.eye(4)), Spacing(1, 1, 1)).data_XYZ.dtype == np.float32


@pytest.mark.parametrize(("n", "step", "wanted"), [(512, 0.75, 256), (1, 5.0, 1), (38, 0.75, 20)])
def test_sizes_round_half_to_even(n, step, wanted):
    assert size_after(n, step, 1.5) == wanted
    assert size_after(n, step * (1 + 1e-12), 1.5) == wanted
    assert size_after(n, step * (1 - 1e-12), 1.5) == wanted


@given(volumes(), st.builds(Size, *[st.integers(2, 20)] * 3))
def test_a_squeeze_is_monais_resize_with_aligned_corners(volume, size_vox):
    turned = orient_ras(volume)
    tensor = torch.from_numpy(np.ascontiguousarray(turned.data_XYZ).astype(np.float64))[None]
    expected = MonaiResize(
        tuple(size_vox), mode="trilinear", align_corners=True, dtype=torch.float64
    )(tensor)[0].numpy()
    got = resize(volume, size_vox)
    assert got.shape_XYZ == size_vox
    assert np.abs(got.data_XYZ - expected).max() <= ROUNDING_HU


def test_a_squeeze_keeps_the_corners_in_place():
    volume = Volume(np.arange(60, dtype=np.int16).reshape(5, 4, 3), np.diag([2.0, 3, 4, 1]))
    got = resize(volume, Size(9, 2, 3))
    assert got.data_XYZ[-1, -1, -1] == volume.data_XYZ[-1, -1, -1]
    assert got.affine @ [8, 1, 2, 1] == pytest.approx(volume.affine @ [4, 3, 2, 1])


def test_antialiasing_averages_what_it_skips():
    rng = np.random.default_rng(0)
    noise = Volume(rng.normal(0, 100, (64, 64, 64)).astype(np.int16), np.diag([-1.0, 1, 1, 1]))
    plain = resample(noise, Spacing(2, 2, 2))
    smooth = resample(noise, Spacing(2, 2, 2), antialias=True)
    assert smooth.shape_XYZ == plain.shape_XYZ
    assert np.array_equal(smooth.affine, plain.affine)
    # A triangle of half-width 2 keeps 3/8 of the variance along each axis.
    assert smooth.data_XYZ.std() == pytest.approx(plain.data_XYZ.std() * (3 / 8) ** 1.5, rel=0.1)


def test_antialiasing_keeps_flat_regions_flips_and_borders():
    data = np.full((9, 8, 7), 50, np.int16)
    flat = resample(Volume(data, np.eye(4)), Spacing(2, 3, 1), antialias=True)
    assert np.unique(flat.data_XYZ).tolist() == [50]
    one_way = Volume(ball(), np.diag([1, 1.3, 2, 1]))
    other_way = Volume(
        ball()[::-1].copy(), affine_of(((0, 1, 2), (-1, 1, 1)), (1, 1.3, 2), (30, 0, 0))
    )
    wanted = Spacing(2.5, 2.6, 2)
    a, b = (resample(volume, wanted, antialias=True).data_XYZ for volume in (one_way, other_way))
    assert_same_up_to_a_tie(a, b)


def test_antialiasing_does_nothing_where_no_axis_shrinks():
    volume = Volume(ball(), np.diag([1, 1.3, 2, 1]))
    wanted = Spacing(0.8, 1.3, 1)
    plain, smooth = (resample(volume, wanted, antialias=on) for on in (False, True))
    assert np.array_equal(plain.data_XYZ, smooth.data_XYZ)
