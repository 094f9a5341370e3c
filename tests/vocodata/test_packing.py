"""The compiled writer of shards makes the bytes of the plain one."""

import numpy as np
import pytest

from vocodata.store import packing, shard
from vocodata.store.blosc_chunk import (
    BIT_SHUFFLED,
    COPIED,
    HEADER_BYTES,
    WORTHWHILE_SHARE,
    ZSTD_FORMAT,
)
from vocodata.store.shard import ABSENT, IMAGE_FILL_HU, chunk_grid, codec_named, encode_shard

pytestmark = pytest.mark.skipif(not packing.CAN_PACK, reason="needs c-blosc2's zstd and a CRC-32C")

ZSTD = codec_named("zstd")


def smooth(shape_ZYX):
    rng = np.random.default_rng(0)
    z, y, x = (np.linspace(-1, 1, n) for n in shape_ZYX)
    body = 300 * np.cos(3 * z[:, None, None]) * np.cos(2 * y[:, None]) * np.cos(x)
    return (body + rng.normal(0, 12, shape_ZYX)).astype(np.int16)


def resampled(shape_ZYX):
    """Neighbours alike: chunks of it are told in bits."""
    data = np.random.default_rng(3).normal(0, 40, shape_ZYX)
    for axis in range(3):
        data = np.roll(data, 1, axis) + data
    return (data + 60 * np.sin(np.arange(shape_ZYX[2]) / 9)).astype(np.int16)


def air(shape_ZYX):
    """High bytes whose bits flip together: bits of low bytes cost less, of both they do not."""
    return np.random.default_rng(5).normal(-1010, 40, shape_ZYX).astype(np.int16)


def noise(shape_ZYX):
    return np.random.default_rng(1).integers(-32768, 32768, shape_ZYX).astype(np.int16)


def both(data_ZYX, monkeypatch, fill=IMAGE_FILL_HU):
    """The shard by the compiled writer, and by the plain one."""
    compiled = encode_shard(data_ZYX, fill=fill, codec=ZSTD)
    with monkeypatch.context() as patch:
        patch.setattr(shard, "CAN_PACK", False)
        return compiled, encode_shard(data_ZYX, fill=fill, codec=ZSTD)


@pytest.mark.parametrize("make", [smooth, resampled, air, noise])
@pytest.mark.parametrize("shape_ZYX", [(64, 32, 96), (33, 70, 41), (1, 1, 1), (31, 64, 32)])
@pytest.mark.parametrize(
    "view",
    [
        lambda data: data,
        lambda data: data[:, :, ::-1],
        lambda data: data[::-1, ::-1],
        lambda data: np.asfortranarray(data),
        lambda data: np.repeat(data, 2, axis=2)[:, :, ::2],
        lambda data: data.view(np.uint16),
        lambda data: np.frombuffer(data.tobytes(), data.dtype).reshape(data.shape),
        lambda data: data.astype(">i2"),
    ],
    ids=[
        *("plain", "mirrored x", "mirrored z y", "turned", "every second", "unsigned"),
        *("read only", "big-endian"),
    ],
)
def test_same_bytes_as_the_plain_writer(make, shape_ZYX, view, monkeypatch):
    data = view(make(shape_ZYX))
    compiled, plain = both(data, monkeypatch, fill=0 if data.dtype == np.uint16 else -1024)
    assert compiled == plain
    as_native = data.astype(data.dtype.newbyteorder("="))
    assert compiled == encode_shard(
        as_native, fill=0 if data.dtype == np.uint16 else -1024, codec=ZSTD
    )


@pytest.mark.parametrize("shape_ZYX", [(0, 5, 5), (5, 0, 5), (5, 5, 0)])
def test_no_voxels_are_an_empty_index(shape_ZYX, monkeypatch):
    compiled, plain = both(np.zeros(shape_ZYX, np.int16), monkeypatch)
    assert compiled == plain
    assert len(compiled) == 4


def test_chunks_of_nothing_but_fill_are_left_out(monkeypatch):
    data = np.full((32, 64, 32), IMAGE_FILL_HU, np.int16)
    data[3, 40, 5] = 7
    compiled, plain = both(data, monkeypatch)
    assert compiled == plain
    index = np.frombuffer(compiled[-36:-4], "<u8").reshape(2, 2)
    assert (index[0] == ABSENT).all()
    assert index[1, 0] == 0
    assert index[1, 1] == len(compiled) - chunk_grid(data.shape).index_bytes


def test_a_fill_of_labels(monkeypatch):
    data = np.zeros((40, 40, 40), np.uint16)
    data[10:20] = 65535
    compiled, plain = both(data, monkeypatch, fill=0)
    assert compiled == plain


def test_most_chunks_of_a_resampled_scan_are_told_in_bits(monkeypatch):
    data = resampled((64, 64, 96))
    compiled, plain = both(data, monkeypatch)
    assert compiled == plain
    grid = chunk_grid(data.shape)
    index = np.frombuffer(compiled[-grid.index_bytes : -4], "<u8").reshape(-1, 2)
    in_bits = [bool(compiled[int(offset) + 2] & BIT_SHUFFLED) for offset, _ in index]
    assert sum(in_bits) >= 10


def test_noise_is_copied_and_what_hardly_shrinks_is_left_as_it_is():
    copied = encode_shard(noise((32, 32, 32)), fill=IMAGE_FILL_HU, codec=ZSTD)
    assert copied[2] == COPIED
    assert len(copied) == HEADER_BYTES + 2**16 + 4 + 20
    # high bytes are zero, low bytes have 7.9 bits: zstd would save a hundredth of them
    rng = np.random.default_rng(2)
    low = rng.integers(0, 240, (32, 32, 32)).astype(np.int16)
    kept = encode_shard(low, fill=IMAGE_FILL_HU, codec=ZSTD)
    assert kept[2] >> 5 == ZSTD_FORMAT
    first = int.from_bytes(kept[HEADER_BYTES + 8 : HEADER_BYTES + 12], "little")
    assert first == 2**14
    squeezed = encode_shard(low // 2, fill=IMAGE_FILL_HU, codec=ZSTD)
    first = int.from_bytes(squeezed[HEADER_BYTES + 8 : HEADER_BYTES + 12], "little")
    assert 0.8 * 2**14 < first < WORTHWHILE_SHARE * 2**14
