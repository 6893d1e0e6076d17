"""Where frames lie in encapsulated pixel data, and what a stream says of its own size."""

import io
import struct

import imagecodecs
import numpy as np
import openjpeg
import pytest
from pydicom.encaps import encapsulate, generate_frames

from worker.encapsulated import MAX_FRAGMENTS, find_frames, stated_samples

FRAMES = [bytes([n]) * (2 * n + 2) + b"\xff\xd9" for n in range(5)]


def items(*fragments, table=b""):
    """Encapsulated pixel data of these fragments."""
    parts = [b"\xfe\xff\x00\xe0" + struct.pack("<I", len(part)) + part for part in (table, *fragments)]
    return b"".join(parts) + b"\xfe\xff\xdd\xe0\0\0\0\0"


def frames_of(value, number):
    source = io.BytesIO(value)
    found = find_frames(source, number)
    return [found.read(source, index) for index in range(len(found.first) - 1)]


@pytest.mark.parametrize("has_bot", [True, False])
@pytest.mark.parametrize("pieces", [1, 2])
def test_frames_are_found_as_pydicom_finds_them(has_bot, pieces):
    value = encapsulate(FRAMES, fragments_per_frame=pieces, has_bot=has_bot)
    assert frames_of(value, 5) == FRAMES == list(generate_frames(value, number_of_frames=5))


def test_one_frame_may_lie_in_many_fragments_and_a_wrong_table_is_not_believed():
    assert frames_of(items(b"ab", b"cd", b"ef"), 1) == [b"abcdef"]
    wrong = np.zeros(3, "<u4").tobytes()
    assert frames_of(items(b"ab", b"cd", b"ef", table=wrong), 3) == [b"ab", b"cd", b"ef"]
    assert frames_of(items(b"ab", b"c\xff\xd9\0", b"d\xff\xd9\0", table=wrong), 2) == [b"abc\xff\xd9\0", b"d\xff\xd9\0"]


def test_any_frame_is_read_without_the_others():
    class Counting(io.BytesIO):
        taken = 0

        def read(self, size=-1):
            content = super().read(size)
            self.taken += len(content)
            return content

    source = Counting(items(*(bytes(1000) for _ in range(500))))
    found = find_frames(source, 500)
    assert source.taken == 8 * 502
    source.taken = 0
    assert found.read(source, 499) == bytes(1000)
    assert source.taken == 1000


@pytest.mark.parametrize(
    ("value", "number"),
    [
        (b"", 1),
        (b"\x01" * 100, 1),
        (items(b"ab", b"cd"), 3),
        (items(b"ab")[:8] + b"\x01" * 64, 1),
        (b"\xfe\xff\x00\xe0\xff\xff\xff\xff" + bytes(64), 1),
        (items() + items(b"ab"), 3),
    ],
)
def test_what_cannot_be_told_apart_is_refused(value, number):
    with pytest.raises(ValueError, match=r"fragment|frames|table"):
        frames_of(value, number)


def test_a_cut_file_keeps_its_whole_frames():
    source = io.BytesIO(items(b"ab" * 50, b"cd" * 50)[: 16 + 100 + 8 + 40])
    found = find_frames(source, 2)
    assert found.read(source, 0) == b"ab" * 50
    with pytest.raises(ValueError, match="ends within"):
        found.read(source, 1)
    with pytest.raises(ValueError, match="fewer frames"):
        found.read(source, 2)


def test_fragments_without_end_are_counted_so_far_and_no_further():
    source = io.BytesIO(items()[:8] + b"\xfe\xff\x00\xe0\0\0\0\0" * (MAX_FRAGMENTS + 5))
    with pytest.raises(ValueError, match="fragment"):
        find_frames(source, 1)
    assert source.tell() <= 8 * (MAX_FRAGMENTS + 2)


GREY = (np.arange(48 * 37) % 251).astype("u1").reshape(48, 37)
COLOUR = np.repeat(GREY[:, :, None], 3, axis=2)


@pytest.mark.parametrize(
    ("stream", "samples"),
    [
        (imagecodecs.jpeg8_encode(GREY), GREY.size),
        (imagecodecs.jpeg8_encode(COLOUR), COLOUR.size),
        (imagecodecs.ljpeg_encode(GREY.astype("u2"), bitspersample=12), GREY.size),
        (imagecodecs.jpegls_encode(GREY), GREY.size),
        (imagecodecs.jpegls_encode(COLOUR), COLOUR.size),
        (bytes(openjpeg.encode(GREY)), GREY.size),
        (imagecodecs.jpeg2k_encode(COLOUR, codecformat="jp2"), COLOUR.size),
        (imagecodecs.htj2k_encode(GREY), GREY.size),
        (imagecodecs.jpegxl_encode(GREY, lossless=True), GREY.size),
        (imagecodecs.jpegxl_encode(GREY, lossless=True, usecontainer=True), GREY.size),
        (imagecodecs.jpegxl_encode(np.zeros((64, 64), "u1"), lossless=True), 64 * 64),
        (imagecodecs.jpegxl_encode(np.zeros((1080, 1920), "u1"), lossless=True), 1080 * 1920),
        (imagecodecs.jpegxl_encode(np.zeros((8, 3000), "u1"), lossless=True), 8 * 3000),
        (b"", 0),
        (b"\xff\xd8", 0),
        (b"\xff\xd8\xff\xff\xff", 0),
        (b"\xff\x4f\xff\x51", 0),
        (b"\xff\x0a", 1),
        (bytes(100), 0),
    ],
)
def test_a_stream_says_how_large_it_is(stream, samples):
    assert stated_samples(bytes(stream)) == samples
