"""From a PET image's values to standardised uptake values.

Knows the body-weight factor for images in Bq/ml, decay corrected to the series' start or to the administration (PS3.3 C.8.9.1,
C.8.9.2; the arithmetic that QIBA published for it). Says nothing where one of the facts is missing or cannot be: a wrong
factor is worse than counts. Does not know pixels.
"""

from __future__ import annotations

import math
from datetime import datetime, timedelta
from typing import Any

from pydicom.dataset import Dataset

TAGS: tuple[str, ...] = (
    *("Units", "CorrectedImage", "DecayCorrection", "PatientWeight", "RadiopharmaceuticalInformationSequence"),
    *("SeriesDate", "SeriesTime", "AcquisitionDate", "AcquisitionTime"),
)
_MAX_WEIGHT_KG = 700.0
_MAX_UPTAKE = timedelta(days=2)


def suv_factor(ds: Dataset) -> float | None:
    """Return what a modality value in Bq/ml is multiplied with to be an SUV (g/ml), or None where it cannot be known."""
    corrected = {str(value).upper() for value in ds.get("CorrectedImage") or ()}
    if str(ds.get("Units") or "").upper() != "BQML" or not {"ATTN", "DECY"} <= corrected:
        return None
    weight_kg = _number(ds.get("PatientWeight"))
    items = ds.get("RadiopharmaceuticalInformationSequence") or []
    dose_bq = _number(items[0].get("RadionuclideTotalDose")) if items else None
    half_life_s = _number(items[0].get("RadionuclideHalfLife")) if items else None
    if not weight_kg or not dose_bq or not half_life_s or min(weight_kg, dose_bq, half_life_s) <= 0:
        return None
    if weight_kg > _MAX_WEIGHT_KG:
        return None
    correction = str(ds.get("DecayCorrection") or "").upper()
    if correction == "ADMIN":
        return weight_kg * 1000 / dose_bq
    uptake = _uptake(ds, items[0]) if correction == "START" else None
    if uptake is None:
        return None
    return weight_kg * 1000 / (dose_bq * 2 ** (-uptake.total_seconds() / half_life_s))


def _uptake(ds: Dataset, item: Dataset) -> timedelta | None:
    """From the injection to the moment that the values are decay corrected to: the series' start."""
    series = _moment(ds.get("SeriesDate"), ds.get("SeriesTime"))
    acquired = _moment(ds.get("AcquisitionDate"), ds.get("AcquisitionTime"))
    if series is None or (acquired is not None and series > acquired):
        return None  # the series was made anew after the scan: its time tells nothing
    injected = _moment(*_split(item.get("RadiopharmaceuticalStartDateTime")))
    if injected is None:
        injected = _moment(ds.get("SeriesDate"), item.get("RadiopharmaceuticalStartTime"))
        if injected is not None and injected > series:
            injected -= timedelta(days=1)  # a time alone, of the evening before
    if injected is None or not timedelta(0) <= series - injected <= _MAX_UPTAKE:
        return None
    return series - injected


def _split(value: Any) -> tuple[str, str]:
    told = str(value or "")
    return told[:8], told[8:].split("+", maxsplit=1)[0].split("-", maxsplit=1)[0]


def _moment(date: Any, time: Any) -> datetime | None:
    day, clock = str(date or "").strip(), str(time or "").strip().replace(":", "")
    whole = clock.split(".")[0].ljust(6, "0")
    try:
        return datetime.strptime(day + whole[:6], "%Y%m%d%H%M%S") if clock else None  # noqa: DTZ007  local, as both are
    except ValueError:
        return None


def _number(value: Any) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None
