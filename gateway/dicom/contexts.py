"""What we take, as an association negotiates it: services, SOP classes, and transfer syntaxes in the order of our choice.

Knows the lists; the conformance statement is made from them. Does not know associations, nor what becomes of an instance.
"""

from __future__ import annotations

from collections.abc import Sequence

from pydicom import uid
from pynetdicom import AllStoragePresentationContexts
from pynetdicom.presentation import PresentationContext, build_context

VERIFICATION = "1.2.840.10008.1.1"
STORAGE_COMMITMENT = "1.2.840.10008.1.20.1"
STORAGE_COMMITMENT_INSTANCE = "1.2.840.10008.1.20.1.1"
"""The one instance of the push model that everybody knows (PS3.4, J.3.5)."""
AVAILABILITY = "1.2.840.10008.5.1.4.33"
PROCEDURE_STEP = "1.2.840.10008.3.1.2.3.3"
SERVICES = {
    VERIFICATION: "Verification",
    STORAGE_COMMITMENT: "Storage Commitment Push Model",
    AVAILABILITY: "Instance Availability Notification",
    PROCEDURE_STEP: "Modality Performed Procedure Step",
}
"""What is taken besides storage, by its SOP class."""

SERVICE_SYNTAXES: tuple[uid.UID, ...] = (uid.ExplicitVRLittleEndian, uid.ImplicitVRLittleEndian)
TRANSFER_SYNTAXES: tuple[uid.UID, ...] = (
    uid.ExplicitVRLittleEndian,
    uid.ImplicitVRLittleEndian,
    uid.JPEGLosslessSV1,
    uid.JPEGLossless,
    uid.JPEGLSLossless,
    uid.JPEG2000Lossless,
    uid.HTJ2KLossless,
    uid.HTJ2KLosslessRPCL,
    uid.RLELossless,
    uid.JPEGBaseline8Bit,
    uid.JPEGExtended12Bit,
    uid.JPEG2000,
    uid.HTJ2K,
    uid.JPEGLSNearLossless,
)
"""In the order of our choice, since the acceptor chooses (PS3.8 section 9.3.3.2): lossless before lossy, plain first so
that nobody compresses for our sake. Not: deflated (a bomb), big endian (retired), video, JPIP (a URL, not pixels)."""

_KINDS: dict[str, str] = {
    uid.DeflatedExplicitVRLittleEndian: "deflated",
    uid.ExplicitVRBigEndian: "big endian",
    **dict.fromkeys(uid.MPEGTransferSyntaxes, "video"),
    **dict.fromkeys(TRANSFER_SYNTAXES, "compressed"),
}

RETIRED_SOP_CLASSES = {
    "1.2.840.10008.5.1.4.1.1.3": "RetiredUltrasoundMultiFrameImageStorage",
    "1.2.840.10008.5.1.4.1.1.5": "RetiredNuclearMedicineImageStorage",
    "1.2.840.10008.5.1.4.1.1.6": "RetiredUltrasoundImageStorage",
    "1.2.840.10008.5.1.4.1.1.12.3": "RetiredXRayAngiographicBiPlaneImageStorage",
    "1.2.840.10008.5.1.4.1.1.77.1": "RetiredVLImageStorage",
    "1.2.840.10008.5.1.4.1.1.77.2": "RetiredVLMultiFrameImageStorage",
}
"""Storage classes of PS3.6 table A-1 that archives still send, unknown to pynetdicom."""


def storage_classes() -> list[str]:
    """The SOP Class UIDs of storage that everybody knows; private ones come by configuration."""
    known = [str(context.abstract_syntax) for context in AllStoragePresentationContexts]
    return [*known, *(each for each in RETIRED_SOP_CLASSES if each not in known)]


def contexts(private_classes: Sequence[str] = ()) -> list[PresentationContext]:
    """What is taken, each with its transfer syntaxes in our order."""
    stored = [
        build_context(each, list(TRANSFER_SYNTAXES)) for each in dict.fromkeys([*storage_classes(), *private_classes])
    ]
    return [*stored, *(build_context(each, list(SERVICE_SYNTAXES)) for each in SERVICES)]


def why_not_taken(abstract_syntax: str, transfer_syntaxes: Sequence[str]) -> str:
    """Why an offer is not taken, and what helps, in a phrase."""
    if abstract_syntax not in SERVICES and abstract_syntax not in storage_classes():
        return "no class that is taken; if it is a vendor's own for storage, name it in COUNTERSIGN_PRIVATE_SOP_CLASSES and start the listener anew"
    kinds = {_KINDS.get(each, "unknown") for each in transfer_syntaxes}
    return f"its transfer syntaxes ({', '.join(sorted(kinds))}) are not taken: have it offer an uncompressed one too"
