"""Writes phantoms as DICOM instances: Digital X-Ray Image Storage - For Presentation (PS3.3 A.26).

Knows the attributes such an instance must have. Does not know the model, the network, or what becomes of the files.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import UID, DigitalXRayImageStorageForPresentation, ExplicitVRLittleEndian

from worker.phantom.anatomy import Phantom, report
from worker.phantom.exposure import BITS_STORED, exposed

Uids = Callable[[str], UID]
"""Gives the UID of a named part of a study: the same name, the same UID."""

IMPLEMENTATION = UID("2.25.209433180394129093164390264093823041953")
FIRST_DAY = dt.date(2025, 1, 6)
_ONES = (
    "Zero", "One", "Two", "Three", "Four", "Five", "Six", "Seven", "Eight", "Nine", "Ten", "Eleven", "Twelve",
    "Thirteen", "Fourteen", "Fifteen", "Sixteen", "Seventeen", "Eighteen", "Nineteen",
)  # fmt: skip
_TENS = ("Twenty", "Thirty", "Forty", "Fifty", "Sixty", "Seventy", "Eighty", "Ninety")


@dataclass(frozen=True, slots=True)
class Order:
    """How a phantom's study is to be written.

    Attributes
    ----------
    number
        1 and up; names the patient and gives the day.
    batch
        Sets these patients and orders apart from those that another number 1 has; at most six characters.
    views
        Instances in the study.
    mirrored
        Flip the pixels left to right and change nothing else.
    inverted
        MONOCHROME1 instead of MONOCHROME2.
    """

    phantom: Phantom
    number: int = 1
    views: int = 1
    mirrored: bool = False
    inverted: bool = False
    batch: str = ""

    @property
    def report(self) -> str:
        """What the written pictures show."""
        return report(self.phantom, mirrored=self.mirrored)


def fresh_uids() -> Uids:
    """Return UIDs never used before (PS3.5 B.2)."""
    salt = uuid.uuid4().hex
    return lambda name: _uid(f"{salt}/{name}")


def seeded_uids(order: Order, seed: int) -> Uids:
    """Return UIDs that the same order and seed always give, and another order does not."""
    return lambda name: _uid(f"countersign phantom/{seed}/{order!r}/{name}")


def study(order: Order, uids: Uids) -> list[FileDataset]:
    """Return the instances of a phantom's study."""
    return [_instance(order, view, uids) for view in range(order.views)]


def write(order: Order, uids: Uids, folder: Path) -> list[Path]:
    """Write a phantom's study into a folder of its own, one file per instance, and return the files."""
    folder.mkdir(parents=True)
    paths = []
    for number, ds in enumerate(study(order, uids), start=1):
        paths.append(folder / f"{number}.dcm")
        ds.save_as(paths[-1], enforce_file_format=True)
    return paths


def patient_name(number: int) -> str:
    """Return a name nobody could take for a person's: ``Phantom^One``, ``Phantom^FortyTwo``."""
    if number < 20:
        word = _ONES[number]
    elif number < 100:
        word = _TENS[number // 10 - 2] + (_ONES[number % 10] if number % 10 else "")
    else:
        word = str(number)
    return f"Phantom^{word}"


def _uid(name: str) -> UID:
    """Return a UID under 2.25 made of a name, as a version 8 UUID (PS3.5 B.2, RFC 9562)."""
    digest = bytearray(hashlib.sha256(name.encode()).digest()[:16])
    digest[6], digest[8] = digest[6] & 0x0F | 0x80, digest[8] & 0x3F | 0x80
    return UID(f"2.25.{uuid.UUID(bytes=bytes(digest)).int}")


def _instance(order: Order, view: int, uids: Uids) -> FileDataset:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = DigitalXRayImageStorageForPresentation
    meta.MediaStorageSOPInstanceUID = uids(f"instance {view}")
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.ImplementationClassUID = IMPLEMENTATION
    meta.ImplementationVersionName = "COUNTERSIGN"
    ds = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    _identify(ds, order, view, uids)
    _describe(ds)
    _fill(ds, order, view)
    return ds


def _identify(ds: Dataset, order: Order, view: int, uids: Uids) -> None:
    """Patient, study, series, equipment and instance (PS3.3 C.7.1, C.7.2, C.7.3, C.7.5, C.12.1)."""
    phantom, day = order.phantom, FIRST_DAY + dt.timedelta(days=order.number)
    ds.SpecificCharacterSet = "ISO_IR 192"
    ds.SOPClassUID = DigitalXRayImageStorageForPresentation
    ds.SOPInstanceUID = uids(f"instance {view}")
    ds.StudyInstanceUID, ds.SeriesInstanceUID = uids("study"), uids("series")
    ds.PatientName = patient_name(order.number)
    ds.PatientID = "-".join(filter(None, ("PHANTOM", order.batch, f"{order.number:04d}")))
    ds.PatientBirthDate = day.replace(year=day.year - phantom.age_y, day=1).strftime("%Y%m%d")
    ds.PatientSex, ds.PatientAge = phantom.sex, f"{phantom.age_y:03d}Y"
    ds.StudyDate = ds.SeriesDate = ds.AcquisitionDate = ds.ContentDate = day.strftime("%Y%m%d")
    ds.StudyTime = ds.SeriesTime = "080000"
    ds.AcquisitionTime = ds.ContentTime = f"0800{view:02d}"
    ds.AccessionNumber = f"PH{order.batch}{order.number:06d}"
    ds.StudyID, ds.SeriesNumber, ds.InstanceNumber = str(order.number), 1, view + 1
    ds.ReferringPhysicianName = ""
    ds.StudyDescription, ds.SeriesDescription = "Chest phantom", "PA"
    ds.Manufacturer, ds.ManufacturerModelName = "countersign", "chest phantom"


def _describe(ds: Dataset) -> None:
    """Anatomy, image, detector and positioning (PS3.3 C.8.11.1 to C.8.11.5), acquisition context (C.7.6.14)."""
    ds.Modality, ds.PresentationIntentType = "DX", "FOR PRESENTATION"
    ds.ImageType = ["DERIVED", "PRIMARY", ""]
    ds.BodyPartExamined, ds.ImageLaterality = "CHEST", "U"
    ds.AnatomicRegionSequence = [_code("51185008", "SCT", "Chest")]
    ds.ViewPosition = "PA"
    ds.ViewCodeSequence = [_code("399348003", "SCT", "postero-anterior")]
    ds.PatientOrientation = ["L", "F"]  # the picture's right edge is the patient's left, its lower edge the feet
    ds.PatientOrientationCodeSequence, ds.PatientGantryRelationshipCodeSequence = [], []
    ds.PositionerType, ds.DetectorType = "", "DIRECT"
    ds.ImagerPixelSpacing = [1.5, 1.5]
    ds.AcquisitionContextSequence = []
    ds.BurnedInAnnotation, ds.LossyImageCompression = "NO", "00"


def _code(value: str, scheme: str, meaning: str) -> Dataset:
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = value, scheme, meaning
    return code


def _fill(ds: Dataset, order: Order, view: int) -> None:
    """Pixels and how to show them (PS3.3 C.7.6.3, C.8.11.3, C.11.2)."""
    exposure = exposed(order.phantom, view=view, inverted=order.inverted)
    stored = np.fliplr(exposure.stored) if order.mirrored else exposure.stored  # (rows, columns)
    ds.Rows, ds.Columns = stored.shape
    ds.SamplesPerPixel = 1
    ds.PhotometricInterpretation = "MONOCHROME1" if order.inverted else "MONOCHROME2"
    ds.PresentationLUTShape = "INVERSE" if order.inverted else "IDENTITY"
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, BITS_STORED, BITS_STORED - 1, 0
    ds.PixelIntensityRelationship = "LOG"
    ds.PixelIntensityRelationshipSign = 1 if order.inverted else -1  # -1: more beam, smaller value
    ds.RescaleIntercept, ds.RescaleSlope, ds.RescaleType = 0, 1, "US"
    ds.WindowCenter, ds.WindowWidth = exposure.centre, exposure.width
    ds.PixelData = np.ascontiguousarray(stored, dtype="<u2").tobytes()
