"""Examples of what the API takes and gives, for `/openapi.json` and `/docs`.

Knows one invented study. A test holds each example against its shape and sends it to its route, so that none can be out
of date.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from record.body import Body, Origin, Section, SectionCode, Sentence

_UID = "1.2.826.0.1.3680043.8.498.1"
_REPORT = "01923f5e-7c00-7d3a-8c11-2b1f6a4d9e01"
_READING = "01923f5e-7b00-7f10-9a20-11c2d3e4f501"
_INSTANCE = "01923f5e-7a00-7b20-8b30-21d2e3f4a501"
_STUDY = "01923f5e-7900-7c30-9c40-31e2f3a4b501"
_USER = "01923f5e-7800-7d40-8d50-41f2a3b4c501"
_DRAFT = "01923f5e-7d00-7e50-9e60-51a2b3c4d501"
_PICTURE = "9f" * 32
_RECEIVED, _CLOSED, _DRAFTED, _SIGNED = (
    "2026-01-02T09:14:05Z",
    "2026-01-02T09:15:06Z",
    "2026-01-02T09:15:31Z",
    "2026-01-02T09:41:52Z",
)
_SAID = Body(
    sections=(
        Section(
            SectionCode.FINDINGS,
            (Sentence("findings-m1", "The lungs are clear.", Origin.MACHINE, "findings-m1", (_PICTURE,)),),
        ),
        Section(
            SectionCode.IMPRESSION,
            (Sentence("impression-m1", "No acute abnormality.", Origin.MACHINE, "impression-m1"),),
        ),
    )
)
_BODY, _TEXT, _WORDS = _SAID.as_dict(), _SAID.plain(), _SAID.digest()
PARAMETERS: Mapping[str, str] = {
    "study_instance_uid": _UID,
    "report_id": _REPORT,
    "reading_id": _READING,
    "instance_id": _INSTANCE,
    "sha256": _PICTURE,
    "frame": "1",
}
"""What stands for a parameter of an address that brings no example of its own."""

_ITEM: Mapping[str, Any] = {
    "study_instance_uid": _UID,
    "state": "ready",
    "revision": 1,
    "instances": 2,
    "modality": "CR",
    "lane": "routine",
    "reading_state": "done",
    "reason_code": None,
    "report_state": "draft",
    "report_id": _REPORT,
    "patient_name": "PHANTOM^ADA",
    "patient_id": "P-1001",
    "patient_sex": "F",
    "patient_age": "064Y",
    "accession_number": "A-2001",
    "study_description": "Chest PA and lateral",
    "study_date": "20260102",
    "site": "main",
    "flags": ["low_confidence"],
    "created_at": _RECEIVED,
    "first_image_at": _RECEIVED,
    "last_image_at": _RECEIVED,
    "updated_at": _DRAFTED,
}
_LINE: Mapping[str, Any] = {
    "id": _REPORT,
    "state": "draft",
    "revision": 1,
    "signed_revision": None,
    "study_revision": 1,
    "outdated": False,
    "created_at": _DRAFTED,
    "updated_at": _DRAFTED,
}

EXAMPLES: Mapping[str, Mapping[str, Any]] = {
    "Alive": {"status": "ok"},
    "Ready": {"database": "up", "redis": "up"},
    "SignIn": {"login": "a.lee", "password": "correct horse battery"},
    "Opened": {"csrf": "c5" * 32, "user": {"id": _USER, "printed_name": "Dr. Ana Lee", "role": "attending"}},
    "SearchRequest": {
        "patient_name": "phantom ada",
        "study_date_from": "2026-01-01",
        "study_date_to": "2026-01-31",
        "limit": 20,
    },
    "StudyPage": {"items": [_ITEM], "next": None},
    "StudyShown": {
        **_ITEM,
        "outdated": False,
        "undecided_conflicts": 0,
        "conflicts": [],
        "decided_conflicts": [],
        "erased_at": None,
        "identity": {
            "patient_name": "PHANTOM^ADA",
            "patient_id": "P-1001",
            "issuer_of_patient_id": "",
            "patient_birth_date": "19610203",
            "patient_sex": "F",
            "patient_age": "064Y",
            "accession_number": "A-2001",
            "study_date": "20260102",
            "study_time": "091200",
            "study_description": "Chest PA and lateral",
            "referring_physician_name": "",
        },
        "revisions": [
            {
                "number": 1,
                "images": 2,
                "images_sha256": "7d" * 32,
                "evidence_kind": "quiet",
                "evidence": {"quiet_s": 60, "instances": 2},
                "created_at": _CLOSED,
            }
        ],
        "timeline": [
            {
                "at": _CLOSED,
                "until": None,
                "code": "closed",
                "facts": {
                    "revision": 1,
                    "images": 2,
                    "evidence_kind": "quiet",
                    "evidence": {"quiet_s": 60, "instances": 2},
                },
            }
        ],
        "series": [
            {
                "series_instance_uid": f"{_UID}.1",
                "modality": "CR",
                "series_number": 1,
                "series_description": "PA",
                "body_part_examined": "CHEST",
                "instances": 2,
            }
        ],
        "readings": [
            {
                "id": _READING,
                "revision": 1,
                "purpose": "primary",
                "state": "done",
                "lane": "routine",
                "protocol": "phantom-chest",
                "protocol_version": "1",
                "protocol_digest": "3c" * 32,
                "model": "phantom",
                "failures": 0,
                "reason_code": None,
                "reason": None,
                "omitted": [],
                "pictures": [
                    {
                        "position": 0,
                        "instance_id": _INSTANCE,
                        "frame": 1,
                        "sha256": _PICTURE,
                        "height": 336,
                        "width": 336,
                        "caption": "CR, view PA",
                        "reason": "no image of the study was left out",
                        "href": f"/api/v1/pictures/{_PICTURE}",
                    }
                ],
                "created_at": _CLOSED,
                "ended_at": _DRAFTED,
            }
        ],
        "drafts": [
            {
                "id": _DRAFT,
                "reading_id": _READING,
                "revision": 1,
                "banner": "AI DRAFT – NOT REVIEWED",
                "labelled_text": "AI DRAFT – NOT REVIEWED\n\n" + _TEXT,
                "body": _BODY,
                "body_sha256": _WORDS,
                "flags": ["low_confidence"],
                "provenance": {"model": {"name": "phantom", "weights_sha256": "1a" * 32}},
                "offered": False,
                "created_at": _DRAFTED,
            }
        ],
        "reports": [_LINE],
    },
    "Decision": {"keep": True, "reason": "The film was relabelled; it is this patient's."},
    "ReportShown": {
        **_LINE,
        "state": "final",
        "revision": 2,
        "signed_revision": 2,
        "updated_at": _SIGNED,
        "study_instance_uid": _UID,
        "erased": False,
        "banner": None,
        "text_revision": 2,
        "text": _TEXT,
        "labelled_text": _TEXT,
        "body": _BODY,
        "body_sha256": _WORDS,
        "ended_reason": None,
        "ended_by": None,
        "ended_at": None,
        "signatures": [
            {
                "report_revision": 2,
                "study_revision": 1,
                "body_sha256": _WORDS,
                "printed_name": "Dr. Ana Lee",
                "role": "attending",
                "meaning": "authorship and approval",
                "method": "password",
                "reasons": {},
                "signed_at": _SIGNED,
            }
        ],
    },
    "Seen": {"seen": 1},
    "SavedText": {"seen": 1, "text": _TEXT},
    "Cancellation": {"seen": 1, "reason": "Another patient's study."},
    "SignatureRequest": {"seen": 2, "shown": 1, "password": "correct horse battery"},
    "EventPage": {
        "items": [
            {
                "position": 4711,
                "hash": "2b" * 32,
                "id": "01923f5e-7e00-7f60-8f70-61b2c3d4e501",
                "at": _SIGNED,
                "kind": "report_signed",
                "actor_kind": "user",
                "actor_id": _USER,
                "study_id": _STUDY,
                "study_instance_uid": _UID,
                "reading_id": None,
                "report_id": _REPORT,
                "facts": {"revision": 2, "study_revision": 1, "body_sha256": _WORDS},
            }
        ],
        "next": None,
    },
}
"""By the name of the shape, as `/openapi.json` has it."""

OTHERS: Mapping[str, Mapping[str, Any]] = {"SavedText": {"seen": 1, "body": _BODY}}
"""A second way to fill the same shape, where there is one."""
