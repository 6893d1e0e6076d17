"""Small DICOM instances for tests of the doors: data sets, their bytes, and files of them."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filebase import DicomIO
from pydicom.filewriter import dcmwrite, write_dataset
from pydicom.uid import ExplicitVRLittleEndian

from record.ids import new_id

CT = "1.2.840.10008.5.1.4.1.1.2"
EXPLICIT, IMPLICIT, BIG = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2", "1.2.840.10008.1.2.2"


def uid() -> str:
    return f"2.25.{new_id().int}"


def instance(side: int = 16, **attributes: object) -> Dataset:
    """A CT picture of `side` × `side` pixels; any attribute can be said, None takes it out."""
    ds = Dataset()
    ds.SOPClassUID, ds.SOPInstanceUID = CT, uid()
    ds.StudyInstanceUID, ds.SeriesInstanceUID = uid(), uid()
    ds.PatientID, ds.PatientName, ds.Modality = "P1", "Canary^Yellow", "CT"
    ds.InstanceNumber, ds.ImageType = 1, ["ORIGINAL", "PRIMARY", "AXIAL"]
    ds.Rows = ds.Columns = side
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.BitsAllocated = ds.BitsStored = 16
    ds.HighBit, ds.PixelRepresentation = 15, 0
    ds.PixelSpacing = [0.5, 0.25]
    ds.add_new(0x7FE00010, "OW", bytes(2 * side * side))
    for keyword, value in attributes.items():
        if value is None:
            delattr(ds, keyword)
        else:
            setattr(ds, keyword, value)
    return ds


def encoded(ds: Dataset, syntax: str = EXPLICIT) -> bytes:
    """The data set's bytes, without file meta."""
    stream = DicomIO(BytesIO())
    stream.is_implicit_VR, stream.is_little_endian = syntax == IMPLICIT, syntax != BIG
    write_dataset(stream, ds)
    return stream.parent.getvalue()  # type: ignore[no-any-return, attr-defined]


def saved(folder: Path, ds: Dataset, name: str | None = None) -> Path:
    """A part-10 file of it."""
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID
    ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
    path = folder / (name or f"{ds.SOPInstanceUID}.dcm")
    dcmwrite(path, ds, enforce_file_format=True)
    return path
