"""From which side a picture was taken: one name a view, whoever wrote it down and where.

Knows View Position (PS3.3 C.8.4.5, C.8.7.1), the codes of View Code Sequence (PS3.16 CID 4010, 4014: SNOMED CT, and SRT as
older devices write it) and what stands in a series' name for want of both. Does not know what a protocol wants to see.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from record.instances import InstanceHeader

FRONTAL = ("PA", "AP", "FRONTAL")
_BY_CODE: Mapping[str, str] = {
    **dict.fromkeys(("272479007", "R-40888", "R-10214"), "PA"),
    **dict.fromkeys(("399348003", "R-10206"), "AP"),
    **dict.fromkeys(("399033003", "R-10202"), "FRONTAL"),
    **dict.fromkeys(("399173006", "R-10236", "399198007", "R-10232", "399067008", "R-102CD"), "LATERAL"),
    **dict.fromkeys(("399162004", "R-10242"), "CC"),
    **dict.fromkeys(("399368009", "R-10226"), "MLO"),
    **dict.fromkeys(("399260004", "R-10224"), "ML"),
    **dict.fromkeys(("399352003", "R-10228"), "LM"),
    **dict.fromkeys(("399099002", "R-10230"), "LMO"),
    **dict.fromkeys(("399192008", "R-1024A"), "XCCL"),
    **dict.fromkeys(("399101009", "R-1024B"), "XCCM"),
    **dict.fromkeys(
        ("399182000", "R-102C1", "399312000", "R-10208", "399059000", "R-10216", "399160007", "R-10204"), "OBLIQUE"
    ),
}
_BY_WORD: Mapping[str, str] = {
    **{
        name: name
        for name in ("PA", "AP", "FRONTAL", "LATERAL", "CC", "MLO", "ML", "LM", "LMO", "XCCL", "XCCM", "OBLIQUE")
    },
    **dict.fromkeys(("LAT", "LL", "RL", "LLAT", "RLAT", "PERFIL", "侧位"), "LATERAL"),
    **dict.fromkeys(("FRONTALE", "FRENTE", "正位"), "FRONTAL"),
    **dict.fromkeys(("RAO", "LAO", "RPO", "LPO", "OBL", "OBLICUA", "斜位"), "OBLIQUE"),
    **{side + view: view for side in "RL" for view in ("CC", "MLO", "ML", "LM", "XCCL")},
}
NAMES = frozenset(_BY_WORD.values())
"""Every name that a view may have here."""
_SIDES: Mapping[str, str] = {
    "RIGHT": "R",
    "LEFT": "L",
    "DERECHA": "R",
    "IZQUIERDA": "L",
    "DERECHO": "R",
    "IZQUIERDO": "L",
}
_UNPAIRED = frozenset(
    {"CHEST", "THORAX", "ABDOMEN", "PELVIS", "HEAD", "BRAIN", "SKULL", "NECK", "HEART", "LIVER", "PROSTATE", "UTERUS"}
    | {f"{part}SPINE" for part in ("", "C", "T", "L", "S", "LS")}
)
_WORD = re.compile(r"[^\W_]+")
_PROJECTIONS = frozenset({"CR", "DX", "RG", "MG", "RF", "PX", "IO"})


def view_of(header: InstanceHeader) -> str:
    """Return the view of a projection: PA, AP, FRONTAL, LATERAL, OBLIQUE, CC, MLO …, or empty where nothing says it.

    What the device wrote into View Position goes first, as it is where we have no name for it.
    """
    stated = header.view_position.strip().upper()
    if stated:
        return _BY_WORD.get(stated, stated)
    if header.view_code in _BY_CODE:
        return _BY_CODE[header.view_code]
    if header.modality.upper() not in _PROJECTIONS:
        return ""
    told = [word.upper() for word in _WORD.findall(f"{header.series_description} {header.protocol_name}")]
    found = {_BY_WORD[word] for word in told if word in _BY_WORD}
    return found.pop() if len(found) == 1 else ""


def laterality_of(header: InstanceHeader) -> str:
    """Return R, L or B (both) for the side of the body that was examined, or empty where nothing says it.

    What a device writes beside a part of the body that has no sides (PS3.3 C.7.3.1: the attribute is for paired ones) is
    not believed.
    """
    if header.body_part_examined.strip().upper() in _UNPAIRED:
        return ""
    for stated in (header.image_laterality, header.laterality):
        if stated.strip().upper() in {"R", "L", "B"}:
            return stated.strip().upper()
    if header.modality.upper() not in _PROJECTIONS:
        return ""
    told = [word.upper() for word in _WORD.findall(f"{header.series_description} {header.protocol_name}")]
    found = {_SIDES[word] for word in told if word in _SIDES}
    if header.modality.upper() == "MG":
        found |= {word[0] for word in told if word[:1] in {"R", "L"} and word[1:] in {"CC", "MLO", "ML", "LM", "XCCL"}}
    return found.pop() if len(found) == 1 else ""
