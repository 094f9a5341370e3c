"""Chunks written here, held to the decoders of c-blosc 1 and c-blosc 2."""

import blosc2
import numcodecs.blosc
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from vocodata.store.blosc_chunk import zstd_chunk

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


def decoded(chunk, data):
    return [
        np.frombuffer(decode(data), chunk.dtype).reshape(chunk.shape)
        for decode in (numcodecs.blosc.decompress, blosc2.decompress)
    ]


@pytest.mark.parametrize("name", CHUNKS)
@pytest.mark.parametrize("level", [1, 2, 5])
def test_both_libraries_read_what_we_write(name, level):
    chunk = CHUNKS[name]
    data = zstd_chunk(chunk, level)
    assert len(data) <= chunk.nbytes + 16
    for back in decoded(chunk, data):
        assert np.array_equal(back, chunk)


@given(arrays.arrays(np.int16, (128,), elements=st.integers(-32768, 32767)))
def test_any_numbers_come_back(chunk):
    for back in decoded(chunk, zstd_chunk(chunk, 2)):
        assert np.array_equal(back, chunk)


def test_the_header_is_that_of_c_blosc_but_for_the_planes():
    chunk = CHUNKS["tissue"]
    ours, theirs = zstd_chunk(chunk, 2), numcodecs.blosc.compress(chunk, b"zstd", 2, 1, 0)
    assert ours[:2] == theirs[:2]
    # Their flag 0x10 says that planes are not split.
    assert ours[2] == theirs[2] & ~0x10
    assert ours[3:8] == theirs[3:8]
    assert int.from_bytes(ours[12:16], "little") == len(ours)


def test_tissue_is_smaller_than_as_c_blosc_writes_it():
    chunk = CHUNKS["tissue"]
    assert len(zstd_chunk(chunk, 2)) <= len(numcodecs.blosc.compress(chunk, b"zstd", 3, 1, 0))
