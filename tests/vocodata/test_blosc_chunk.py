"""Chunks written here, held to the decoders of c-blosc 1 and c-blosc 2."""

from concurrent.futures import ThreadPoolExecutor

import blosc2
import numcodecs.blosc
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from vocodata.store import native
from vocodata.store.blosc_chunk import (
    BIT_SHUFFLED,
    BLOCKS,
    COMPRESSORS,
    FRAME_START,
    HEADER_BYTES,
    SHUFFLED,
    UNPARTED,
    part_planes,
)
from vocodata.store.blosc_chunk import buffer as buffer_of_planes

SIDE = (32, 32, 32)
RNG = np.random.default_rng(1)


def smooth(width_hu):
    """As resampling leaves it: neighbours along x alike, by noise of that width."""
    noise = RNG.normal(0, 1, SIDE)
    for axis in range(3):
        noise = np.roll(noise, 1, axis) + 2 * noise + np.roll(noise, -1, axis)
    across = np.linspace(-120, 150, SIDE[0])[:, None, None]
    return (across + width_hu * noise / noise.std()).astype(np.int16)


CHUNKS = {
    "constant": np.full(SIDE, -1024, np.int16),
    "tissue": RNG.normal(40, 25, SIDE).astype(np.int16),
    "narrow": RNG.normal(0, 5, SIDE).astype(np.int16),
    "smooth": smooth(20),
    "smooth and quiet": smooth(4),
    "bone": smooth(300),
    "noisy air": RNG.normal(-1010, 40, SIDE).astype(np.int16),
    "stretched": (8 * smooth(30)).astype(np.int16),
    "half of it air": np.where(np.arange(SIDE[2]) < 16, -1024, smooth(20)).astype(np.int16),
    "one plane of noise": RNG.integers(0, 256, SIDE).astype(np.uint16),
    "noise": RNG.integers(-32768, 32768, SIDE).astype(np.int16),
    "labels": RNG.integers(0, 9, SIDE).astype(np.uint8),
    "noise of bytes": RNG.integers(0, 256, SIDE).astype(np.uint8),
}
THEIRS = {"zstd": (b"zstd", 2), "lz4": (b"lz4", 5)}


def buffer(chunk, compressor):
    return buffer_of_planes(part_planes(chunk), compressor)


def decoded(chunk, data):
    return [
        np.frombuffer(decode(data), chunk.dtype).reshape(chunk.shape)
        for decode in (numcodecs.blosc.decompress, blosc2.decompress)
    ]


@pytest.mark.parametrize("name", CHUNKS)
@pytest.mark.parametrize("compressor", COMPRESSORS)
def test_both_libraries_read_what_we_write(name, compressor):
    chunk = CHUNKS[name]
    data = buffer(chunk, COMPRESSORS[compressor])
    assert compressor == "zstd" or not data[2] & BIT_SHUFFLED
    assert len(data) <= chunk.nbytes + 16
    for back in decoded(chunk, data):
        assert np.array_equal(back, chunk)


def streams(data):
    """Those of each block: of low bytes, of high bytes."""
    found = []
    for block in range(BLOCKS):
        at = HEADER_BYTES + 4 * block
        at = int.from_bytes(data[at : at + 4], "little")
        for _ in range(2):
            size = int.from_bytes(data[at : at + 4], "little")
            found.append(data[at + 4 : at + 4 + size])
            at += 4 + size
    return found


def test_a_chunk_takes_the_way_that_costs_less():
    ways = {
        name: buffer(CHUNKS[name], COMPRESSORS["zstd"])[2] & (SHUFFLED | BIT_SHUFFLED)
        for name in ("constant", "narrow", "smooth", "bone", "one plane of noise")
    }
    assert ways["narrow"] == SHUFFLED  # eight bits that change together are three of entropy
    assert ways["smooth"] == ways["bone"] == BIT_SHUFFLED


def test_bits_that_are_noise_lie_in_their_frame_as_they_are():
    data = buffer(CHUNKS["smooth"], COMPRESSORS["zstd"])
    assert data[2] & BIT_SHUFFLED
    low = streams(data)[0]
    assert low[:5] == FRAME_START
    kind, raw_bytes = low[7] & 7, int.from_bytes(low[7:10], "little") >> 3
    assert kind == 0  # not the last, raw
    assert raw_bytes % 2048 == 0
    assert 3 <= raw_bytes // 2048 <= 6
    voxels = CHUNKS["smooth"][:16].reshape(-1)
    for bit in range(raw_bytes // 2048):
        plane = np.frombuffer(low[10 + 2048 * bit : 10 + 2048 * (bit + 1)], np.uint8)
        assert np.array_equal(np.unpackbits(plane, bitorder="little"), voxels >> bit & 1)


def test_high_bytes_whose_bits_flip_together_are_not_told_in_bits():
    """About -1024, noise flips three bits at once: in bits it would be a tenth larger."""
    both, chunk = COMPRESSORS["zstd"], CHUNKS["noisy air"]
    assert buffer(chunk, both)[2] & SHUFFLED
    assert len(buffer(chunk, both)) == len(buffer(chunk, both._replace(bits=None)))


@pytest.mark.parametrize(("name", "most"), [("smooth", 1.02), ("bone", 1.06)])
def test_bits_cost_hardly_more_bytes(name, most):
    both = COMPRESSORS["zstd"]
    in_bits, in_bytes = (buffer(CHUNKS[name], each) for each in (both, both._replace(bits=None)))
    assert in_bits[2] & BIT_SHUFFLED
    assert in_bytes[2] & SHUFFLED
    assert len(in_bits) < most * len(in_bytes)


@pytest.mark.parametrize("name", ["tissue", "smooth", "bone"])
def test_without_the_librarys_encoder_chunks_are_written_all_the_same(monkeypatch, name):
    chunk = CHUNKS[name]
    ours = buffer(chunk, COMPRESSORS["zstd"])
    monkeypatch.setattr(native, "HAS_ENCODER", False)
    others = buffer(chunk, COMPRESSORS["zstd"])
    assert abs(len(ours) - len(others)) < 0.05 * len(others)
    for back in decoded(chunk, others):
        assert np.array_equal(back, chunk)


def test_threads_encode_side_by_side():
    chunks = [smooth(width) for width in range(3, 35, 2)]
    alone = [buffer(chunk, COMPRESSORS["zstd"]) for chunk in chunks]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda chunk: buffer(chunk, COMPRESSORS["zstd"]), chunks)) == alone


@pytest.mark.parametrize("compressor", COMPRESSORS)
@given(numbers=arrays.arrays(np.int16, (8, 8, 8), elements=st.integers(-32768, 32767)))
def test_any_numbers_come_back(compressor, numbers):
    for back in decoded(numbers, buffer(numbers, COMPRESSORS[compressor])):
        assert np.array_equal(back, numbers)


@pytest.mark.parametrize(
    ("compressor", "name", "order"),
    [
        ("zstd", "narrow", numcodecs.blosc.SHUFFLE),
        ("zstd", "smooth", numcodecs.blosc.BITSHUFFLE),
        ("lz4", "smooth", numcodecs.blosc.SHUFFLE),
    ],
)
def test_the_header_is_that_of_c_blosc_but_for_planes_and_blocks(compressor, name, order):
    chunk = CHUNKS[name]
    ours = buffer(chunk, COMPRESSORS[compressor])
    theirs = numcodecs.blosc.compress(chunk, *THEIRS[compressor], order, 0)
    assert ours[:2] == theirs[:2]
    assert ours[2] == theirs[2] & ~UNPARTED
    assert ours[3:8] == theirs[3:8]
    assert int.from_bytes(ours[8:12], "little") == chunk.nbytes // BLOCKS
    assert int.from_bytes(ours[12:16], "little") == len(ours)


@pytest.mark.parametrize("compressor", COMPRESSORS)
def test_tissue_is_hardly_larger_than_as_c_blosc_writes_it(compressor):
    for name in ("tissue", "smooth"):
        chunk = CHUNKS[name]
        theirs = numcodecs.blosc.compress(chunk, *THEIRS[compressor], numcodecs.blosc.SHUFFLE, 0)
        assert len(buffer(chunk, COMPRESSORS[compressor])) <= 1.01 * len(theirs)
