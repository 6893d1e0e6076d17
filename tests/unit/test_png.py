"""Our PNG writer: what it packs, every reader unpacks."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from worker import png


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (7, 1), (64, 48), (33, 17, 3), (1, 1, 3)])
def test_levels_come_back_as_they_went(shape):
    levels = np.random.default_rng(len(shape)).integers(0, 256, shape).astype("u1")
    packed = png.encode(levels)
    back = Image.open(io.BytesIO(packed))
    assert back.mode == ("RGB" if len(shape) == 3 else "L")
    assert (np.asarray(back) == levels).all()
    assert png.encode(levels.copy()) == packed


def test_levels_that_do_not_lie_in_one_piece_come_back_too():
    levels = np.arange(64 * 48, dtype="u1").reshape(64, 48)
    assert (np.asarray(Image.open(io.BytesIO(png.encode(levels[::-2, ::3])))) == levels[::-2, ::3]).all()


def test_every_chunk_carries_its_sum():
    packed, at, kinds = png.encode(np.zeros((5, 4), "u1")), 8, []
    while at < len(packed):
        (length,) = struct.unpack_from(">I", packed, at)
        body = packed[at + 4 : at + 8 + length]
        assert struct.unpack_from(">I", packed, at + 8 + length) == (zlib.crc32(body),)
        kinds.append(body[:4])
        at += 12 + length
    assert kinds == [b"IHDR", b"IDAT", b"IEND"]
