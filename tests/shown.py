"""Images for tests of the viewer: files with known values on record, their addresses, and what came back."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydicom.dataset import Dataset

from record.db import transaction
from record.models import Instance
from tests.instances import instance, saved
from tests.records import uid
from tests.web_records import Desk

HOUNSFIELD = (-1024, -1000, -600, -350, -160, -100, 0, 40, 60, 75, 100, 239, 240, 300, 400, 600, 1000, 3071)


def ct(values: tuple[int, ...] = HOUNSFIELD, **attributes: object) -> Dataset:
    """One row of known Hounsfield units, stored as CT scanners store them."""
    ds = instance(16, PixelSpacing=None, **attributes)
    ds.Rows, ds.Columns = 1, len(values)
    ds.RescaleIntercept, ds.RescaleSlope = -1024, 1
    ds.PixelData = (np.array(values) + 1024).astype("<u2").tobytes()  # (columns,)
    return ds


def take(desk: Desk, folder: Path, *data_sets: Dataset, site: str = "main") -> tuple[str, list[str]]:
    """Files in the store and on record; returns their study's UID and their ids, in the order given."""
    study_uid = uid()
    for ds in data_sets:
        ds.StudyInstanceUID = study_uid
    desk.take([saved(folder, ds) for ds in data_sets], site=site)
    with transaction(desk.engine) as session:
        ids = {row.sop_instance_uid: str(row.id) for row in session.query(Instance)}
    return study_uid, [ids[ds.SOPInstanceUID] for ds in data_sets]


def rendered(study_uid: str, instance_id: str, frame: int = 1, **query: object) -> str:
    asked = "&".join(f"{name}={value}" for name, value in query.items())
    return f"/api/v1/studies/{study_uid}/instances/{instance_id}/frames/{frame}/rendered?{asked}"


def viewer(study_uid: str, instance_id: str, frame: int = 1) -> str:
    return f"/studies/{study_uid}/instances/{instance_id}?frame={frame}"


def pixels(answer: httpx.Response) -> NDArray[Any]:
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "image/png"
    return np.asarray(Image.open(io.BytesIO(answer.content)))  # (H, W) or (H, W, 3)


def linear(values: tuple[int, ...], center: float, width: float) -> list[int]:
    """PS3.3 C.11.2.1.2.1, word for word, for an output range of 0 to 255."""
    found = []
    for x in values:
        if x <= center - 0.5 - (width - 1) / 2:
            y = 0.0
        elif x > center - 0.5 + (width - 1) / 2:
            y = 255.0
        else:
            y = ((x - (center - 0.5)) / (width - 1) + 0.5) * 255
        found.append(round(y))
    return found
