"""The shard format, held to zarr-python: it reads what we write, we read what it writes."""

import contextlib
import json
import subprocess
import sys
import tracemalloc

import google_crc32c
import numcodecs.blosc
import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from vocodata.errors import StoreError
from vocodata.geometry import Size
from vocodata.store import native
from vocodata.store.blosc_chunk import BIT_SHUFFLED
from vocodata.store.metadata import array_document, document_bytes
from vocodata.store.reader import ShardReader, _scratch
from vocodata.store.shard import CODECS, chunk_grid, codec_named, encode_shard, parse_index


def _phantom(shape_ZYX, dtype, seed=0):
    """Asymmetric everywhere: a ramp along each axis, noise, and a block of fill."""
    rng = np.random.default_rng(seed)
    z, y, x = np.ogrid[tuple(slice(n) for n in shape_ZYX)]
    values = z * 7 + y * 3 + x + rng.integers(0, 50, shape_ZYX)
    if dtype == "int16":
        values = values * 5 - 1500
    data = (values % 256 if dtype == "uint8" else values).astype(dtype)
    fill = -1024 if dtype == "int16" else 0
    data[: shape_ZYX[0] // 2, : shape_ZYX[1] // 2] = fill
    return data, fill


def _write(folder, data_ZYX, fill, codec="zstd"):
    folder.mkdir(parents=True, exist_ok=True)
    document = array_document(
        data_ZYX.shape[::-1], dtype=data_ZYX.dtype.name, fill=fill, codec=CODECS[codec]
    )
    (folder / "zarr.json").write_bytes(document_bytes(document))
    shard = folder / "c.0.0.0"
    shard.write_bytes(encode_shard(data_ZYX, fill=fill, codec=CODECS[codec]))
    return ShardReader(
        shard,
        shape_XYZ=Size(*data_ZYX.shape[::-1]),
        dtype=data_ZYX.dtype,
        fill=fill,
        name="btcv/one",
    )


def _expected(data_ZYX, fill, start, size):
    """The box by plain numpy, in memory's order."""
    box = np.full(size, fill, data_ZYX.dtype)
    at = [np.arange(a, a + n) for a, n in zip(start, size, strict=True)]
    inside = [(i >= 0) & (i < n) for i, n in zip(at, data_ZYX.shape[::-1], strict=True)]
    chosen = np.ix_(*(i[j] for i, j in zip(at, inside, strict=True)))
    box[np.ix_(*inside)] = data_ZYX.transpose(2, 1, 0)[chosen]
    return box


@pytest.mark.parametrize("codec", ["zstd", "lz4"])
@pytest.mark.parametrize("dtype", ["int16", "uint8", "uint16"])
@pytest.mark.parametrize("shape_ZYX", [(32, 32, 32), (5, 7, 9), (33, 65, 31), (1, 40, 100)])
def test_zarr_python_reads_what_we_write(tmp_path, shape_ZYX, dtype, codec):
    data, fill = _phantom(shape_ZYX, dtype)
    reader = _write(tmp_path / "a", data, fill, codec)
    array = zarr.open_array(tmp_path / "a", mode="r")
    np.testing.assert_array_equal(array[:], data)
    assert array.fill_value == fill
    assert array.dtype == data.dtype
    whole = reader.read(Size(0, 0, 0), reader.shape_XYZ, check_crc=True)
    np.testing.assert_array_equal(whole, data.transpose(2, 1, 0))
    assert whole.flags.c_contiguous
    assert whole.flags.writeable


def test_we_read_what_zarr_python_writes(tmp_path):
    data, fill = _phantom((70, 45, 99), "int16")
    _write(tmp_path / "a", data, fill)
    (tmp_path / "a" / "c.0.0.0").unlink()
    zarr.open_array(tmp_path / "a", mode="r+")[:] = data
    reader = ShardReader(
        tmp_path / "a" / "c.0.0.0",
        shape_XYZ=Size(99, 45, 70),
        dtype=data.dtype,
        fill=fill,
        name="btcv/one",
    )
    whole = reader.read(Size(0, 0, 0), reader.shape_XYZ, check_crc=True)
    np.testing.assert_array_equal(whole, data.transpose(2, 1, 0))


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    """Voxels and an open shard of them, for each width of voxel."""
    made = {dtype: _phantom((50, 70, 101), dtype) for dtype in ("int16", "uint8")}
    return {
        dtype: (data, fill, _write(tmp_path_factory.mktemp(dtype), data, fill))
        for dtype, (data, fill) in made.items()
    }


@settings(max_examples=100, deadline=None)
@given(
    start=st.tuples(*[st.integers(-40, 110)] * 3),
    size=st.tuples(*[st.integers(1, 70)] * 3),
    dtype=st.sampled_from(["int16", "uint8"]),
)
def test_any_box_equals_numpy_also_outside_the_volume(opened, start, size, dtype):
    data, fill, reader = opened[dtype]
    box = reader.read(Size(*start), Size(*size), check_crc=True)
    np.testing.assert_array_equal(box, _expected(data, fill, start, size))
    assert box.dtype == data.dtype


def test_chunks_of_fill_are_left_out(tmp_path):
    data = np.full((64, 64, 64), -1024, np.int16)
    empty = _write(tmp_path / "air", data, -1024)
    assert (tmp_path / "air" / "c.0.0.0").stat().st_size == chunk_grid((64, 64, 64)).index_bytes
    assert (empty.read(Size(0, 0, 0), Size(64, 64, 64), check_crc=True) == -1024).all()
    data[40, 3, 50] = 7
    one = _write(tmp_path / "one", data, -1024)
    assert (one.index.offset_CCC >= 0).sum() == 1
    np.testing.assert_array_equal(zarr.open_array(tmp_path / "one", mode="r")[:], data)


def test_chunks_along_x_lie_side_by_side(tmp_path):
    data, fill = _phantom((32, 64, 128), "int16", seed=3)
    data[data == fill] = 0
    index = _write(tmp_path, data, fill).index
    ends = index.offset_CCC + index.bytes_CCC
    np.testing.assert_array_equal(ends[..., :-1], index.offset_CCC[..., 1:])


def test_a_shard_in_another_order_of_chunks_reads_the_same(tmp_path):
    data, fill = _phantom((32, 64, 128), "int16", seed=3)
    data[data == fill] = 0
    reader = _write(tmp_path, data, fill)
    index = reader.index
    shard = (tmp_path / "c.0.0.0").read_bytes()
    order = np.random.default_rng(1).permutation(index.offset_CCC.size)
    entries = np.zeros((order.size, 2), "<u8")
    body = b"pad"
    for number in order:
        offset, size = index.offset_CCC.flat[number], index.bytes_CCC.flat[number]
        entries[number] = (len(body), size)
        body += shard[offset : offset + size]
    tail = entries.tobytes()
    shuffled = tmp_path / "shuffled"
    shuffled.write_bytes(body + tail + google_crc32c.value(tail).to_bytes(4, "little"))
    other = ShardReader(
        shuffled, shape_XYZ=reader.shape_XYZ, dtype=data.dtype, fill=fill, name="btcv/one"
    )
    box = other.read(Size(5, 6, 7), Size(100, 50, 20), check_crc=True)
    np.testing.assert_array_equal(box, _expected(data, fill, (5, 6, 7), (100, 50, 20)))


def test_same_voxels_give_same_bytes_whatever_their_strides():
    data, fill = _phantom((33, 40, 50), "int16")
    reference = encode_shard(data, fill=fill, codec=CODECS["zstd"])
    mirrored = data[:, :, ::-1].copy()[:, :, ::-1]
    for view in (np.asfortranarray(data), data[::-1].copy()[::-1], mirrored):
        assert encode_shard(view, fill=fill, codec=CODECS["zstd"]) == reference
    before = numcodecs.blosc.use_threads
    try:
        numcodecs.blosc.use_threads = True
        assert encode_shard(data, fill=fill, codec=CODECS["zstd"]) == reference
        assert numcodecs.blosc.use_threads is True
    finally:
        numcodecs.blosc.use_threads = before


def test_a_mirrored_view_is_not_copied_whole():
    """The memory that a build predicts for a scan has no room for it twice."""
    view = np.full((64, 128, 128), 40, np.int16)[:, :, ::-1]
    encode_shard(view[:32], fill=-1024, codec=CODECS["zstd"])
    tracemalloc.start()
    try:
        encode_shard(view, fill=-1024, codec=CODECS["zstd"])
        assert tracemalloc.get_traced_memory()[1] < view.nbytes / 2
    finally:
        tracemalloc.stop()


def test_the_slow_reader_equals_the_compiled_one(tmp_path, monkeypatch):
    assert native.HAS_BLOSC2
    assert native.HAS_CRC32C
    data, fill = _phantom((50, 70, 101), "int16")
    reader = _write(tmp_path, data, fill)
    monkeypatch.setattr(native, "HAS_BLOSC2", False)
    for start, size in [((0, 0, 0), (101, 70, 50)), ((-3, 30, 20), (50, 90, 60))]:
        box = reader.read(Size(*start), Size(*size), check_crc=True)
        np.testing.assert_array_equal(box, _expected(data, fill, start, size))


@pytest.mark.parametrize("compiled", [True, False])
def test_a_flipped_bit_in_a_chunk_is_seen(tmp_path, monkeypatch, compiled):
    monkeypatch.setattr(native, "HAS_BLOSC2", compiled)
    data, fill = _phantom((40, 40, 40), "int16")
    reader = _write(tmp_path, data, fill)
    shard = bytearray((tmp_path / "c.0.0.0").read_bytes())
    at = int(reader.index.offset_CCC[1, 1, 1] + reader.index.bytes_CCC[1, 1, 1] // 2)
    shard[at] ^= 0x10
    (tmp_path / "c.0.0.0").write_bytes(shard)
    with pytest.raises(StoreError, match=r"Scan 'btcv/one'.*chunk \(z 1, y 1, x 1\).*checksum"):
        reader.read(Size(0, 0, 0), Size(40, 40, 40), check_crc=True)
    assert reader.read(Size(0, 0, 0), Size(32, 32, 32), check_crc=True).shape == (32, 32, 32)


def _as_blosc_writes_it(folder, reader, compressor, level, shuffle):
    """The same shard, its chunks compressed by blosc itself."""
    entries, body = np.full((reader.index.offset_CCC.size, 2), 2**64 - 1, "<u8"), b""
    for number, at in enumerate(np.ndindex(reader.index.offset_CCC.shape)):
        if reader.index.offset_CCC[at] >= 0:
            chunk = np.ascontiguousarray(reader.chunk(at))
            data = numcodecs.blosc.compress(chunk, compressor, level, shuffle, 0)
            entries[number] = (len(body), len(data) + 4)
            body += data + google_crc32c.value(data).to_bytes(4, "little")
    tail = entries.tobytes()
    (folder / "theirs").write_bytes(body + tail + google_crc32c.value(tail).to_bytes(4, "little"))
    return ShardReader(
        folder / "theirs",
        shape_XYZ=reader.shape_XYZ,
        dtype=reader.dtype,
        fill=reader.fill,
        name="btcv/one",
    )


@pytest.mark.parametrize("has_streams", [True, False])
@pytest.mark.parametrize("dtype", ["int16", "uint8"])
@pytest.mark.parametrize(
    ("compressor", "level", "shuffle"),
    [
        *((b"zstd", 3, 1), (b"lz4", 5, 1), (b"zstd", 3, 2), (b"lz4", 9, 2)),
        *((b"zlib", 1, 1), (b"lz4", 0, 1)),
    ],
    ids=["zstd", "lz4", "bits by zstd", "bits by lz4", "zlib", "not compressed"],
)
def test_chunks_as_blosc_writes_them_read_the_same(
    tmp_path, monkeypatch, compressor, level, shuffle, dtype, has_streams
):
    data, fill = _phantom((50, 70, 40), dtype)
    ours = _write(tmp_path, data, fill)
    theirs = _as_blosc_writes_it(tmp_path, ours, compressor, level, shuffle)
    if not has_streams:
        monkeypatch.setattr(_scratch.context, "addresses", (_scratch.context.addresses[0], 0))
    for start, size in [((0, 0, 0), (40, 70, 50)), ((5, 6, 17), (30, 40, 12))]:
        for reader in (ours, theirs):
            box = reader.read(Size(*start), Size(*size), check_crc=True)
            np.testing.assert_array_equal(box, _expected(data, fill, start, size))


@pytest.fixture(scope="module", params=["zstd", "zstd in bits", "lz4"])
def one_chunk(request, tmp_path_factory):
    data = np.random.default_rng(2).normal(40, 10, (32, 32, 32))
    if request.param == "zstd in bits":
        for axis in range(3):
            data = np.roll(data, 1, axis) + data
    folder = tmp_path_factory.mktemp(request.param)
    reader = _write(folder, data.astype(np.int16), -1024, request.param.split()[0])
    shard = (folder / "c.0.0.0").read_bytes()
    assert bool(shard[2] & BIT_SHUFFLED) == (request.param == "zstd in bits")
    return reader, shard


@settings(max_examples=200, deadline=None)
@given(at=st.integers(0, 60), value=st.integers(0, 255))
def test_a_damaged_head_is_refused_or_read_within_bounds_even_unchecked(one_chunk, at, value):
    """The first bytes of a chunk say how long its streams are: none may lead outside it."""
    reader, shard = one_chunk
    damaged = bytearray(shard)
    damaged[at] = value
    reader.path.write_bytes(damaged)
    with contextlib.suppress(StoreError):
        box = reader.read(Size(0, 0, 0), Size(32, 32, 32), check_crc=False)
        assert box.shape == (32, 32, 32)


def test_a_chunk_that_is_no_blosc_is_refused_even_unchecked(tmp_path):
    data, fill = _phantom((40, 40, 40), "int16")
    reader = _write(tmp_path, data, fill)
    with (tmp_path / "c.0.0.0").open("r+b") as file:
        file.seek(int(reader.index.offset_CCC[1, 1, 1]))
        file.write(b"\xff" * 16)
    with pytest.raises(StoreError, match="cannot be decompressed"):
        reader.read(Size(32, 32, 32), Size(8, 8, 8), check_crc=False)


def test_a_shard_cut_while_open_is_seen(tmp_path):
    data, fill = _phantom((40, 40, 40), "int16")
    reader = _write(tmp_path, data, fill)
    with (tmp_path / "c.0.0.0").open("r+b") as file:
        file.truncate(100)
    with pytest.raises(StoreError, match="truncated"):
        reader.read(Size(0, 0, 0), Size(40, 40, 40), check_crc=True)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda shard: shard[: len(shard) // 2], "does not match its checksum"),
        (lambda shard: shard[:10], "truncated"),
        (lambda _: b"", "truncated"),
        (lambda shard: shard[:-9] + bytes([shard[-9] ^ 1]) + shard[-8:], "its checksum"),
    ],
    ids=["half", "ten_bytes", "empty", "flipped_bit"],
)
def test_a_damaged_index_is_refused_at_open(tmp_path, damage, words):
    data, fill = _phantom((40, 40, 40), "int16")
    _write(tmp_path, data, fill)
    shard = tmp_path / "c.0.0.0"
    shard.write_bytes(damage(shard.read_bytes()))
    with pytest.raises(StoreError, match=f"Scan 'btcv/one'.*{words}"):
        ShardReader(shard, shape_XYZ=Size(40, 40, 40), dtype=data.dtype, fill=fill, name="btcv/one")


def test_an_index_that_points_outside_the_shard_is_refused():
    for entry in [(0, 10**9), (2**63, 100), (50, 2**64 - 2), (0, 3)]:
        tail = np.array([entry], "<u8").tobytes()
        tail += google_crc32c.value(tail).to_bytes(4, "little")
        with pytest.raises(StoreError, match="outside the shard"):
            parse_index(tail, chunk_grid((8, 8, 8)), shard_bytes=200)


def test_a_missing_shard_never_reads_as_fill(tmp_path):
    with pytest.raises(StoreError, match=r"Scan 'btcv/one'.*shard .* is missing"):
        ShardReader(
            tmp_path / "no", shape_XYZ=Size(4, 4, 4), dtype=np.dtype("<i2"), fill=0, name="btcv/one"
        )


def test_a_shard_that_cannot_be_opened_is_named(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StoreError, match=r"Scan 'btcv/one'.*cannot be opened"):
        ShardReader(
            tmp_path / "file" / "c.0.0.0",
            shape_XYZ=Size(4, 4, 4),
            dtype=np.dtype("<i2"),
            fill=0,
            name="btcv/one",
        )


def test_an_unknown_codec_is_refused():
    with pytest.raises(StoreError, match=r"'gzip' is not known; expected one of zstd, lz4"):
        codec_named("gzip")


def test_the_first_read_of_a_new_process_comes_from_the_cache(tmp_path):
    data, fill = _phantom((40, 40, 40), "int16")
    _write(tmp_path, data, fill).read(Size(0, 0, 0), Size(8, 8, 8), check_crc=True)
    script = (
        "import sys, json, numpy as np; from pathlib import Path\n"
        "from vocodata.geometry import Size; from vocodata.store import gather, reader\n"
        "r = reader.ShardReader(Path(sys.argv[1]), shape_XYZ=Size(40, 40, 40),"
        " dtype=np.dtype('<i2'), fill=-1024, name='a/b')\n"
        "r.read(Size(0, 0, 0), Size(8, 8, 8), check_crc=True)\n"
        "print(json.dumps(sum(gather.read_box.stats.cache_hits.values())))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "c.0.0.0")],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert json.loads(done.stdout) == 1


@pytest.mark.parametrize("name", [b"zlib", b"blosclz"])
def test_a_refused_head_does_not_spoil_chunks_that_are_read_after_it(tmp_path, name):
    """What c-blosc2's context remembered of it, bits lying in planes, stayed on."""
    chunk = np.random.default_rng(0).normal(0, 30, (32, 32, 32)).astype(np.int16)
    sound = bytes(numcodecs.blosc.compress(chunk, name, 5, numcodecs.blosc.SHUFFLE, 0))
    damaged = bytearray(sound)
    damaged[2] |= 0x05
    readers = [_reader_of_chunk(tmp_path / str(n), data) for n, data in enumerate((damaged, sound))]
    with pytest.raises(StoreError, match="cannot be decompressed"):
        readers[0].read(Size(0, 0, 0), Size(32, 32, 32), check_crc=False)
    box = readers[1].read(Size(0, 0, 0), Size(32, 32, 32), check_crc=False)
    assert np.array_equal(box.transpose(2, 1, 0), chunk)


def _reader_of_chunk(path, chunk):
    """Of a shard that is one chunk."""
    crc = google_crc32c.value(bytes(chunk)).to_bytes(4, "little")
    index = np.array([(0, len(chunk) + 4)], "<u8").tobytes()
    path.write_bytes(bytes(chunk) + crc + index + google_crc32c.value(index).to_bytes(4, "little"))
    return ShardReader(
        path, shape_XYZ=Size(32, 32, 32), dtype=np.dtype("<i2"), fill=-1024, name="made/one"
    )
