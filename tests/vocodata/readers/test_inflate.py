import gzip
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
