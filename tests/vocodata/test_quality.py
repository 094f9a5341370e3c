import json

import numpy as np
import pytest

from tests.vocodata.bodies import trunk
from vocodata.building import build
from vocodata.census import take_census
from vocodata.errors import REASONS, ManifestError
from vocodata.geometry import Volume
from vocodata.manifest import load_manifest
from vocodata.presets import load_presets
from vocodata.quality import CHECKS, QualityLimits, failed_checks, largest_part, measure
from vocodata.store import open_store

TURNS = {
    "mirrored": np.s_[::-1],
    "back to front": np.s_[:, ::-1],
    "upside down": np.s_[:, :, ::-1],
}


def failed(data, spacing_mm=(4, 4, 5), *, limits=None):
    volume = Volume(data, np.diag([*spacing_mm, 1.0]))
    return failed_checks(measure(volume, take_census(volume)), limits or QualityLimits())


def with_values(where, value):
    data = trunk().astype(np.float32)
    data[where] = value
    return data


FAULTS = {
    "small_field": lambda: (trunk(), (1, 1, 5)),
    "large_field": lambda: (trunk(), (20, 4, 5)),
    "few_slices": lambda: (trunk()[:, :, 26:36], (4, 4, 5)),
    "coarse_spacing": lambda: (trunk(), (4, 4, 12)),
    "screenshot": lambda: (np.clip((trunk() + 160) / 1.6, 0, 255).astype(np.int16), (4, 4, 5)),
    "shifted_hu": lambda: (trunk() + np.int16(1024), (4, 4, 5)),
    "off_scale": lambda: ((trunk() // 2).astype(np.int16), (4, 4, 5)),
    "no_air": lambda: (np.maximum(trunk(), -400), (4, 4, 5)),
    "no_soft_tissue": lambda: (np.where(abs(trunk()) <= 150, -160, trunk()), (4, 4, 5)),
    "no_bone": lambda: (np.minimum(trunk(), 150), (4, 4, 5)),
    "truncated_range": lambda: (np.clip(trunk(), -175, 250), (4, 4, 5)),
    "extreme_hu": lambda: (with_values((5, 5, 5), 5e8), (4, 4, 5)),
    "flat_slices": lambda: (with_values(np.s_[:, :, :6], -1024), (4, 4, 5)),
    "repeated_slices": lambda: (trunk()[:, :, np.arange(60) // 2 * 2], (4, 4, 5)),
    "little_body": lambda: (with_values(np.s_[:, :, 3:], -1000), (4, 4, 5)),
    "much_padding": lambda: (with_values(np.s_[:, 18:], -2048), (4, 4, 5)),
    "much_table": lambda: (with_values(np.s_[:, 30:35], -1000), (4, 4, 5)),
    "maybe_back_to_front": lambda: (trunk()[:, ::-1], (4, 4, 5)),
    "maybe_upside_down": lambda: (trunk()[:, :, ::-1], (4, 4, 5)),
    "maybe_mirrored": lambda: (trunk()[::-1], (4, 4, 5)),
}


def test_a_trunk_passes_every_check():
    assert failed(trunk()) == ()


@pytest.mark.parametrize("check", CHECKS)
def test_each_fault_is_seen(check):
    assert check in failed(*FAULTS[check]())


def test_a_single_voxel_far_below_padding_is_seen():
    assert "extreme_hu" in failed(with_values((5, 5, 5), -5e8))


def test_the_smallest_number_is_no_padding():
    data = trunk()
    data[:5] = -32768
    assert "extreme_hu" in failed(data)


@pytest.mark.parametrize("padding_hu", [-1024, -2000, -2048, -3024, -3072, -4096])
def test_usual_padding_is_not_extreme(padding_hu):
    assert failed(with_values(np.s_[:5], padding_hu)) == ()


@pytest.mark.parametrize("padding_hu", [None, -1024, -3024], ids=str)
def test_noise_and_padding_do_not_hide_that_1024_was_not_subtracted(padding_hu):
    noise = np.random.default_rng(1).normal(0, 30, trunk().shape)
    data = (trunk() + noise).astype(np.int16)
    shifted = data + np.int16(1024)
    if padding_hu is not None:
        data[:8], shifted[:8] = padding_hu, padding_hu
    assert "shifted_hu" in failed(shifted)
    assert "shifted_hu" not in failed(data)


def test_a_head_that_fills_its_scan_is_not_shifted():
    """Much bone of 1000 HU, and hardly any air."""
    data = np.random.default_rng(2).normal(40, 30, (48, 48, 48)).astype(np.int16)
    data[:, :4], data[:, 4:9] = -1000, 1000
    data[:, 3] = -600
    assert "shifted_hu" not in failed(data)


def test_every_check_is_a_reason_too():
    assert set(CHECKS) <= set(REASONS)


def test_every_preset_has_limits():
    for preset in load_presets().values():
        assert isinstance(preset.quality, QualityLimits)
    assert load_presets()["headneck"].quality.max_field_mm == 600


def test_a_head_is_judged_by_its_lungs_alone():
    limits = load_presets()["headneck"].quality
    seen = {turn: failed(trunk()[where], limits=limits) for turn, where in TURNS.items()}
    assert seen == {
        "mirrored": (),
        "back to front": (),
        "upside down": ("maybe_upside_down",),
    }


def test_the_largest_part_is_one_piece():
    solid = np.zeros((6, 6, 6), bool)
    solid[1:4, 1:4, 1:4] = solid[5, 5, 5] = solid[4, 4, 4] = True
    assert largest_part(solid).sum() == 27
    assert not largest_part(np.zeros((2, 2, 2), bool)).any()


def edited(manifest, **keys):
    document = json.loads(manifest.read_text())
    document["sources"][0] |= keys
    manifest.write_text(json.dumps(document))
    return manifest


def test_the_manifest_decides_what_a_failed_check_does(make_sources, tmp_path):
    """The made-up scans are 80 mm wide: a small field."""
    built = {}
    for policy in ("flag", "keep", "exclude"):
        manifest = edited(make_sources(1), quality={"small_field": policy})
        report = build(manifest, tmp_path / f"{policy}.zarr", workers=0)
        rows = open_store(report.store).catalog().to_pylist()
        built[policy] = (report.excluded, [("small_field" in row["flags"]) for row in rows])
    assert built == {
        "flag": ({}, [True]),
        "keep": ({}, [False]),
        "exclude": ({"small_field": 1}, []),
    }


def test_a_check_that_does_not_exist_is_refused(make_sources):
    manifest = edited(make_sources(1), quality={"no_bones": "keep"})
    with pytest.raises(ManifestError, match="'no_bones' is no check; did you mean 'no_bone'"):
        load_manifest(manifest)


def test_what_was_measured_is_in_the_catalogue(built):
    measures = json.loads(open_store(built).catalog()["quality"][0].as_py())
    assert measures["slices"] == 30
    assert measures["body_share"] > 0.2
