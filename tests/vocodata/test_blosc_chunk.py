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
    BLOCKS,
    COMPRESSORS,
    UNPARTED,
    part_planes,
)
from vocodata.store.blosc_chunk import buffer as buffer_of_planes

SIDE = (32, 32, 32)
RNG = np.random.default_rng(1)
CHUNKS = {
    "constant": np.full(SIDE, -1024, np.int16),
    "tissue": RNG.normal(40, 25, SIDE).astype(np.int16),
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
    assert len(data) <= chunk.nbytes + 16
    for back in decoded(chunk, data):
        assert np.array_equal(back, chunk)


def test_without_the_librarys_encoder_chunks_are_written_all_the_same(monkeypatch):
    chunk = CHUNKS["tissue"]
    ours = buffer(chunk, COMPRESSORS["zstd"])
    monkeypatch.setattr(native, "HAS_ENCODER", False)
    others = buffer(chunk, COMPRESSORS["zstd"])
    assert abs(len(ours) - len(others)) < 0.01 * len(others)
    for back in decoded(chunk, others):
        assert np.array_equal(back, chunk)


def test_threads_encode_side_by_side():
    chunks = [RNG.normal(40, 25, SIDE).astype(np.int16) for _ in range(16)]
    alone = [buffer(chunk, COMPRESSORS["zstd"]) for chunk in chunks]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda chunk: buffer(chunk, COMPRESSORS["zstd"]), chunks)) == alone


@pytest.mark.parametrize("compressor", COMPRESSORS)
@given(numbers=arrays.arrays(np.int16, (8, 8, 8), elements=st.integers(-32768, 32767)))
def test_any_numbers_come_back(compressor, numbers):
    for back in decoded(numbers, buffer(numbers, COMPRESSORS[compressor])):
        assert np.array_equal(back, numbers)


@pytest.mark.parametrize("compressor", COMPRESSORS)
def test_the_header_is_that_of_c_blosc_but_for_planes_and_blocks(compressor):
    chunk = CHUNKS["tissue"]
    ours = buffer(chunk, COMPRESSORS[compressor])
    theirs = numcodecs.blosc.compress(chunk, *THEIRS[compressor], numcodecs.blosc.SHUFFLE, 0)
    assert ours[:2] == theirs[:2]
    assert ours[2] == theirs[2] & ~UNPARTED
    assert ours[3:8] == theirs[3:8]
    assert int.from_bytes(ours[8:12], "little") == chunk.nbytes // BLOCKS
    assert int.from_bytes(ours[12:16], "little") == len(ours)


@pytest.mark.parametrize("compressor", COMPRESSORS)
def test_tissue_is_smaller_than_as_c_blosc_writes_it(compressor):
    chunk = CHUNKS["tissue"]
    theirs = numcodecs.blosc.compress(chunk, *THEIRS[compressor], numcodecs.blosc.SHUFFLE, 0)
    assert len(buffer(chunk, COMPRESSORS[compressor])) <= len(theirs)
