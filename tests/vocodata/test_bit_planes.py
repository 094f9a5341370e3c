"""Bits of bytes as planes, held to numpy's."""

import numpy as np
import pytest
from numba import njit

from vocodata.store import vectors
from vocodata.store.bit_planes import (
    BITS,
    BLOCK_VOX,
    PLANE_BYTES,
    cost_of_bits,
    cost_of_bytes,
    foretold_bytes,
    is_matchless,
    merge_planes,
    noisy_planes,
    split_planes,
)
from vocodata.store.blosc_chunk import COMPRESSORS

RNG = np.random.default_rng(4)
BYTES = RNG.integers(0, 256, (2, BLOCK_VOX)).astype(np.uint8)


def split(planes_PV):
    bits = np.full_like(planes_PV, 0xAA)
    split_planes(planes_PV, bits)
    return bits


def test_planes_are_those_of_numpy():
    for plane, bits in zip(BYTES, split(BYTES), strict=True):
        assert np.array_equal(
            np.unpackbits(bits.reshape(BITS, PLANE_BYTES), axis=1, bitorder="little"),
            np.unpackbits(plane[:, None], axis=1, bitorder="little").T,
        )


@pytest.mark.parametrize("has_instruction", [True, False])
def test_bits_come_back_in_any_range_of_layers(monkeypatch, has_instruction):
    if has_instruction and not vectors.HAS_BIT_MATRICES:
        pytest.skip("this processor has no instruction for it")
    monkeypatch.setattr(vectors, "HAS_BIT_MATRICES", has_instruction)
    merge = njit(merge_planes.py_func)
    bits = split(BYTES)[1]
    for first, last in [(0, BLOCK_VOX), (8192, BLOCK_VOX), (0, 256), (512, 512)]:
        back = np.full(BLOCK_VOX, 0x55, np.uint8)
        merge(bits.ctypes.data, PLANE_BYTES, back.ctypes.data, first, last)
        assert np.array_equal(back[first:last], BYTES[1, first:last])
        assert (back[:first] == 0x55).all()
        assert (back[last:] == 0x55).all()


@pytest.mark.parametrize(
    ("lacking", "settings"),
    [
        ("gfni", {}),
        ("avx", {}),
        (None, {"CPU_NAME": "", "CPU_FEATURES": ""}),
        (None, {"CPU_NAME": "generic"}),
        (None, {"ENABLE_AVX": 0}),
    ],
)
def test_no_instruction_that_would_end_the_compiler(monkeypatch, lacking, settings):
    has = {each: each != lacking for each in ("gfni", "avx")}
    monkeypatch.setattr("llvmlite.binding.get_host_cpu_features", lambda: has)
    for name, value in {"CPU_NAME": None, "CPU_FEATURES": None, "ENABLE_AVX": 1}.items():
        monkeypatch.setattr(vectors.config, name, value)
    assert vectors.has_bit_matrices() == (lacking is None)
    for name, value in settings.items():
        monkeypatch.setattr(vectors.config, name, value)
    assert not vectors.has_bit_matrices()


def test_noise_is_told_from_what_neighbours_share():
    ramp = np.arange(BLOCK_VOX) % 32 * 8
    for noise_bits in range(4):
        noise = RNG.integers(0, 1 << noise_bits, BLOCK_VOX)
        plane = (ramp | noise).astype(np.uint8)
        assert noisy_planes(split(plane[None])[0]) == noise_bits
    assert noisy_planes(split(BYTES)[0]) == BITS
    # Bits that change with every voxel are no noise.
    chequered = (np.arange(BLOCK_VOX) % 2 * 255).astype(np.uint8)
    assert noisy_planes(split(chequered[None])[0]) == 0


def test_what_need_not_be_undone_costs_its_bytes():
    assert cost_of_bytes(BLOCK_VOX) == BLOCK_VOX
    assert 12_500 < cost_of_bytes(12_000) < 13_500
    assert 13_000 < cost_of_bits(13_000, 10_240) < cost_of_bits(13_000, 0)
    assert cost_of_bits(BLOCK_VOX, 10_240) < BLOCK_VOX


def test_what_bytes_take_is_foretold_where_nothing_matches():
    compress = COMPRESSORS["zstd"].low
    smooth = 100 + 20 * np.sin(np.arange(BLOCK_VOX) / 300)
    for width, is_raw in [(1, False), (4, False), (12, False), (60, True)]:
        noise = RNG.normal(0, width, BLOCK_VOX)
        plane = (smooth + noise).round().astype(np.int64).astype(np.uint8)
        bits = split(plane[None])[0]
        assert is_matchless(bits, noisy_planes(bits) * PLANE_BYTES) == (width > 1)
        if width == 1:
            continue
        if is_raw:
            assert foretold_bytes(plane) == BLOCK_VOX
            assert len(compress(plane)) > 0.95 * BLOCK_VOX
        else:
            assert abs(foretold_bytes(plane) - len(compress(plane))) < 100


def with_a_part_of_one_value(block_ZYX):
    block_ZYX[:2] = 7


def with_each_slice_twice(block_ZYX):
    block_ZYX[1::2] = block_ZYX[::2]


def with_slices_between(block_ZYX):
    block_ZYX[2::3] = block_ZYX[1::3][:5]


def with_each_row_twice(block_ZYX):
    block_ZYX[:, 1::2] = block_ZYX[:, ::2]


def with_a_padded_end(block_ZYX):
    block_ZYX[14:] = block_ZYX[13]


@pytest.mark.parametrize(
    "change",
    [
        with_a_part_of_one_value,
        with_each_slice_twice,
        with_slices_between,
        with_each_row_twice,
        with_a_padded_end,
    ],
)
def test_what_comes_again_is_a_match(change):
    block_ZYX = RNG.integers(0, 256, (16, 32, 32)).astype(np.uint8)
    assert is_matchless(split(block_ZYX.reshape(1, -1))[0], BITS * PLANE_BYTES)
    change(block_ZYX)
    plane = block_ZYX.ravel()
    bits = split(plane[None])[0]
    assert noisy_planes(bits) == BITS
    assert not is_matchless(bits, BITS * PLANE_BYTES)
