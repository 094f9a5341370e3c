import gzip
import tracemalloc
import zlib

import numpy as np
import pytest

from vocodata.errors import UnreadableScanError
from vocodata.readers import inflate

NUMBERS = np.random.default_rng(0).integers(-1000, 1000, 300_000).astype("<i2")
CONTENT = b"header" + NUMBERS.tobytes() + b"trailer"


@pytest.fixture(params=["installed", "zlib"])
def library(request, monkeypatch):
    """Whatever is installed (isal, if it is), and Python's own zlib."""
    if request.param == "zlib":
        monkeypatch.setattr(inflate, "_deflate", zlib)


def read(path):
    return inflate.read_array(path, offset=6, dtype=np.dtype("<i2"), count=NUMBERS.size)


@pytest.mark.usefixtures("library")
def test_numbers_come_out_of_gzip_and_plain_files(tmp_path):
    (tmp_path / "plain").write_bytes(CONTENT)
    (tmp_path / "gz").write_bytes(gzip.compress(CONTENT))
    (tmp_path / "padded").write_bytes(gzip.compress(CONTENT) + bytes(512))
    for name in ("plain", "gz", "padded"):
        assert np.array_equal(read(tmp_path / name), NUMBERS)
        assert inflate.read_start(tmp_path / name, 6) == b"header"


@pytest.mark.usefixtures("library")
@pytest.mark.parametrize("cut", [1, 8, 1000, 200_000])
def test_a_stream_that_ends_too_early_is_refused(tmp_path, cut):
    (tmp_path / "gz").write_bytes(gzip.compress(CONTENT)[:-cut])
    with pytest.raises(UnreadableScanError, match="ends too early") as caught:
        read(tmp_path / "gz")
    assert caught.value.code == "truncated_gzip"


@pytest.mark.usefixtures("library")
@pytest.mark.parametrize("at", [-8, -2, 5000, 200_000])
def test_a_flipped_bit_is_refused(tmp_path, at):
    damaged = bytearray(gzip.compress(CONTENT))
    damaged[at] ^= 8
    (tmp_path / "gz").write_bytes(damaged)
    with pytest.raises(UnreadableScanError) as caught:
        read(tmp_path / "gz")
    assert caught.value.code in {"corrupt_gzip", "truncated_gzip"}


@pytest.mark.usefixtures("library")
def test_fewer_numbers_than_promised_are_refused(tmp_path):
    (tmp_path / "gz").write_bytes(gzip.compress(CONTENT[:5000]))
    with pytest.raises(UnreadableScanError, match=r"holds 4994 bytes.*promises 600000") as caught:
        read(tmp_path / "gz")
    assert caught.value.code == "truncated_file"


def test_a_stream_that_goes_on_far_behind_the_voxels_is_refused(tmp_path, monkeypatch):
    path = tmp_path / "a.gz"
    path.write_bytes(gzip.compress(bytes(3_000_000)))
    assert inflate.read_array(path, offset=0, dtype=np.dtype("u1"), count=1000).size == 1000
    monkeypatch.setattr(inflate, "MAX_REST_BYTES", 1_000_000)
    with pytest.raises(UnreadableScanError, match="goes on for more than 1000000 bytes") as caught:
        inflate.read_array(path, offset=0, dtype=np.dtype("u1"), count=1000)
    assert caught.value.code == "overlong_gzip"


@pytest.mark.parametrize("content", [gzip.compress(b"x" * 900), b"x" * 900])
def test_memory_is_not_taken_for_what_a_file_cannot_hold(tmp_path, content):
    path = tmp_path / "a"
    path.write_bytes(content)
    tracemalloc.start()
    with pytest.raises(UnreadableScanError, match=r"promises 8000000000, which do not fit"):
        inflate.read_array(path, offset=0, dtype=np.dtype("f8"), count=10**9)
    assert tracemalloc.get_traced_memory()[1] < 10e6
    tracemalloc.stop()
