"""A lossless JPEG encoder (process 14, first-order prediction), as small as a test needs.

Source: ITU-T T.81, annexes C (codes), F.1.2 (differences) and H (lossless).
"""

import struct

import numpy as np


def encode(pixels_YX):
    """A 16-bit image as a lossless JPEG stream, predictor 1, one code of five bits a category."""
    rows, columns = pixels_YX.shape
    # 17 categories, all with codes of five bits: T.81 forbids only the code of all ones.
    counts = [0, 0, 0, 0, 17, *[0] * 11]
    table = bytes([0x00, *counts, *range(17)])
    frame = struct.pack(">BHHB3B", 16, rows, columns, 1, 1, 0x11, 0)
    scan = bytes([1, 1, 0x00, 1, 0, 0])
    parts = [(0xC3, frame), (0xC4, table), (0xDA, scan)]
    head = b"".join(struct.pack(">BBH", 255, kind, len(b) + 2) + b for kind, b in parts)
    bits = "".join(map(_bits, _differences(pixels_YX.astype(np.int64))))
    bits += "1" * (-len(bits) % 8)
    data = int(bits, 2).to_bytes(len(bits) // 8, "big").replace(b"\xff", b"\xff\x00")
    return b"\xff\xd8" + head + data + b"\xff\xd9"


def _differences(pixels_YX):
    """From the left neighbour; a row's first from the pixel above, the very first from 2^15."""
    predicted_YX = np.empty_like(pixels_YX)
    predicted_YX[:, 1:] = pixels_YX[:, :-1]
    predicted_YX[1:, 0] = pixels_YX[:-1, 0]
    predicted_YX[0, 0] = 1 << 15
    difference = (pixels_YX - predicted_YX) % (1 << 16)
    return np.where(difference > 1 << 15, difference - (1 << 16), difference).ravel().tolist()


def _bits(difference):
    category = abs(difference).bit_length()
    if category == 0 or category == 17 or difference == 1 << 15:
        return f"{16 if difference else 0:05b}"
    value = difference if difference > 0 else difference + (1 << category) - 1
    return f"{category:05b}{value:0{category}b}"
