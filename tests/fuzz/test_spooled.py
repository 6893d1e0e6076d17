"""Spooled files that a disk, or somebody, changed: what they say is whole, or they are refused by name."""

from __future__ import annotations

import contextlib
import json
import struct
import zlib
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway import spool as spools
from gateway.indexer import arrival_of
from gateway.spool import META_AT, SopIdentity, Source, Spooled
from record.admission import Arrival
from record.errors import InvalidInstance
from tests.hostile import EXTREMES, bounded, hurt, tries
from tests.instances import CT, EXPLICIT, encoded, instance

DATA_SET = encoded(instance(side=4, SOPInstanceUID="1.2.3.4", StudyInstanceUID="1.2.3", SeriesInstanceUID="1.2.3.1"))
META = spools.file_meta(
    SopIdentity(CT, "1.2.3.4", EXPLICIT), Source("dicom", "SENDER", "COUNTERSIGN", "10.0.0.7", "main")
)
NOW = datetime(2026, 11, 26, tzinfo=UTC)


def spooled(meta: bytes = META, data_set: bytes = DATA_SET) -> bytes:
    """A file that is whole, whatever is in it."""
    crc = zlib.crc32(data_set, zlib.crc32(meta))
    return spools.preamble(len(data_set), crc, NOW) + b"DICM" + meta + data_set


def sealed(told: bytes, rest: bytes) -> bytes:
    """A preamble that somebody wrote, with its own CRC right."""
    told = told[:124].ljust(124, b"\0")
    return told + struct.pack("<I", zlib.crc32(told)) + rest


def meta_of(private: bytes) -> bytes:
    """File meta information whose private part is somebody's."""
    body = META[12 : META.index(struct.pack("<HH", 2, 0x0102))]
    body += struct.pack("<HH2sHI", 2, 0x0102, b"OB", 0, len(private)) + private
    return META[:8] + struct.pack("<I", len(body)) + body


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
privates = st.one_of(st.fixed_dictionaries({"door": anything, "address": anything, "site": anything}), anything).map(
    lambda told: json.dumps(told).encode()
) | st.binary(max_size=40)
preambles = st.builds(
    lambda mark, *numbers: struct.pack("<8sQIQ", mark, *numbers),
    st.sampled_from([b"CSGNSPL1", b"CSGNSPL2"]),
    st.sampled_from([len(DATA_SET), *EXTREMES, (1 << 64) - 1]),
    st.sampled_from([zlib.crc32(META + DATA_SET), 0]),
    st.integers(0, (1 << 64) - 1),
)
files = st.one_of(
    hurt(spooled()),
    st.builds(spooled, hurt(META)),
    st.builds(spooled, st.just(META), hurt(DATA_SET)),
    st.builds(spooled, hurt(META), hurt(DATA_SET)),
    privates.map(meta_of).map(spooled),
    preambles.map(lambda told: sealed(told, spooled()[128:])),
    hurt(spooled()[:128]).map(lambda told: sealed(told, spooled()[128:])),
    st.binary(max_size=300),
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    return tmp_path_factory.mktemp("spooled")


@tries(800)
@given(files)
@example(
    sealed(struct.pack("<8sQIQ", b"CSGNSPL1", len(DATA_SET), zlib.crc32(META + DATA_SET), 1 << 63), spooled()[128:])
)
@example(spooled(meta_of(b"[" * 50_000)))
@example(spooled(meta_of(b'{"door": 1, "address": null, "site": []}')))
def test_a_changed_file_is_refused_or_says_what_can_be_kept(folder: Path, content: bytes) -> None:
    path = folder / f"{'0' * 32}.dcm"
    path.write_bytes(content)
    with bounded():
        with contextlib.suppress(InvalidInstance), spools.mapped(path) as view:
            told: Spooled = spools.read(path, view)
            assert told.data_set_at + told.data_set_bytes == len(content)
        with contextlib.suppress(InvalidInstance):
            _require_storable(arrival_of(path), content)


@tries(300)
@given(st.integers(0, len(spooled()) * 8 - 1))
def test_no_bit_falls_over_unseen(folder: Path, bit: int) -> None:
    content = bytearray(spooled())
    content[bit // 8] ^= 1 << bit % 8
    path = folder / f"{'1' * 32}.dcm"
    path.write_bytes(content)
    with pytest.raises(InvalidInstance):
        arrival_of(path)


def _require_storable(arrival: Arrival, content: bytes) -> None:
    """Columns take what it says."""
    assert content[:META_AT].endswith(b"DICM")
    texts: list[Any] = [arrival.source, arrival.peer_ae_title, arrival.peer_address]
    texts += [] if arrival.site_name is None else [arrival.site_name]
    for text in texts:
        assert isinstance(text, str)
        text.encode()
    assert arrival.received_at.year < 10_000
