"""Why an association ended as it did, and what to do about it, in words: for logs, commands and pages.

Knows every code that `association`, `server` and `listener` leave, and what each refusal asks for. Does not know associations.
A stranger's words that a sentence repeats are quoted as a shell needs it: it may be copied into one.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

from record.ids import short

OUTCOMES = {
    "released": "released in good order",
    "closed": "the peer closed the connection without a release",
    "aborted": "aborted",
    "rejected": "rejected",
    "insecure": "TLS failed",
    "failed": "a fault of ours: the listener's log has it",
    "stopped": "the listener stopped",
    "pushed_out": "it asked for nothing while others waited",
}
_REASONS: dict[str, tuple[str, str]] = {
    "called_ae_title_unknown": (
        "it calls us {called}",
        "The sender has to call us by our AE title: that of `up --aet` or COUNTERSIGN_AE_TITLE, else COUNTERSIGN.",
    ),
    "peer_unknown": ("it is no known sender", "Let the sender in with `countersign peers add {calling} {address}`."),
    "peer_elsewhere": (
        "its AE title is known at another address",
        "If it moved: `countersign peers change {calling} --new-address {address}`. If it is another one: `countersign peers add {calling} {address}`.",
    ),
    "peer_uncertified": (
        "this sender is bound to a certificate that it did not show",
        "It has to come by the TLS port with the certificate that `countersign peers list` names.",
    ),
    "too_many_associations": (
        "as many associations stand as may",
        "More associations at a time: COUNTERSIGN_MAX_ASSOCIATIONS.",
    ),
    "too_many_of_peer": (
        "this sender has as many associations as it may",
        "Allow it more with `countersign peers change {calling} --max-associations N`.",
    ),
    "no_room": (
        "the spool's disk has too little room",
        "Free space: it goes on by itself. COUNTERSIGN_MIN_FREE_BYTES is how much has to stay free.",
    ),
    "application_context_unknown": ("it asks for no DICOM application", "It is no DICOM sender; find out what it is."),
    "protocol_version_unknown": (
        "it speaks another version of the protocol",
        "It is no DICOM sender; find out what it is.",
    ),
    "by_peer": ("the peer aborted", "The sender's log says why."),
    "silent": (
        "the peer fell silent",
        "Look at the sender and the network; COUNTERSIGN_IDLE_TIMEOUT_S is how long it may.",
    ),
    "too_slow": ("a PDU came too slowly", "Look at the network between the sender and us."),
    "nothing_taken": (
        "nothing that it offered is taken",
        "See what it offered, and why that is not taken: `countersign associations show {id}`.",
    ),
    "speaks_tls": (
        "it speaks TLS at the port without",
        "Have the sender use no TLS at this port, or our port for TLS (COUNTERSIGN_DICOM_TLS_PORT, where it is set).",
    ),
    "speaks_http": ("it speaks HTTP", "It is no DICOM sender; find out what it is."),
    "no_request": ("it asked for no association", "It is no DICOM sender; find out what it is."),
    "malformed_request": ("its request cannot be read", "It is no DICOM sender, or a broken one; find out what it is."),
    "pdu_too_long": ("it sent a longer PDU than was agreed on", "Tell the sender's vendor."),
    "context_not_accepted": ("it sent on a presentation context that was not accepted", "Tell the sender's vendor."),
    "tls_wrong_version_number": ("it speaks no TLS", "Send to the port without TLS, or have the sender use TLS."),
    "tls_http_request": ("it speaks HTTP", "It is no DICOM sender; find out what it is."),
    "tls_peer_did_not_return_a_certificate": (
        "it shows no certificate",
        "Give the sender a certificate of an authority in COUNTERSIGN_DICOM_TLS_CA.",
    ),
    "tls_certificate_verify_failed": (
        "its certificate is of no authority we know, or has expired",
        "Add its authority to COUNTERSIGN_DICOM_TLS_CA, or renew the certificate.",
    ),
    "tls_unsupported_protocol": ("it speaks an older TLS than 1.2", "Have the sender use TLS 1.2 or newer."),
    "tls_no_shared_cipher": ("it knows none of our ciphers", "Have the sender use TLS 1.2 with a cipher of BCP 195."),
}
OF_TLS = [code for code in _REASONS if code.startswith("tls_")]
"""Codes of handshakes that failed; OpenSSL has more."""
_PROTOCOL = ("it broke the protocol", "Tell the sender's vendor.")
_TLS = ("TLS failed", "Compare the certificates on both sides; the code is OpenSSL's.")
REFUSALS = {
    0x0110: "See the listener's log.",
    0x0111: "Keep both, for a person to decide, with `countersign peers change {calling} --no-strict`; or mend the sender.",
    0x0122: "Have the sender send it in another transfer syntax: deflated data is not taken.",
    0x0124: "If it is known, say where it answers: `countersign peers change {calling} --port N`. Else enter it with `countersign peers add`.",
    0x0211: "Nothing has to be done: it asked for a service that is not offered.",
    0x0213: "Free space on the spool's disk, or have it ask for less at a time.",
    0xA700: "Free space on the spool's disk, or, for a strict sender, start PostgreSQL; then have it send again.",
    0xA900: "Tell the sender's vendor: what it announces is not what it sends.",
    0xC000: "Look at what was kept aside, with `countersign quarantine list`; then have it mended and sent again.",
}
"""What to do about a status that we answered; about any other, to tell the vendor."""
_VENDOR = "Tell the sender's vendor."


def remedy_of(code: str) -> str:
    """What to do about it, whoever it was; empty where nothing is to be done."""
    return in_words(code)[1] if code else ""


def in_words(code: str) -> tuple[str, str]:
    """What a code means, and what to do about it, whoever it was."""
    why, remedy = _of(code)
    return why.format(**_ANYBODY), remedy.format(**_ANYBODY)


def explained(ended: Mapping[str, Any]) -> tuple[str, list[str]]:
    """How an association ended, and what to do about it and about each refusal in it.

    Parameters
    ----------
    ended
        `outcome`, `reason_code`, `refusals`, `calling_ae_title`, `called_ae_title`, `peer_address` and `certificate_names`, as on
        record.
    """
    code, title = ended["reason_code"], ended["calling_ae_title"]
    names = {
        "calling": "AE" if title.startswith("-") else shlex.quote(title or "AE"),  # else it would be an option
        "called": shlex.quote(ended["called_ae_title"]),
        "address": shlex.quote(ended["peer_address"]),
        "id": short(ended.get("id", "ID")),
    }
    how = OUTCOMES.get(ended["outcome"], ended["outcome"])
    remedies: list[str] = []
    if code:
        why, remedy = (text.format(**names) for text in _of(code))
        shown = ", ".join(map(shlex.quote, ended["certificate_names"]))
        how = f"{how}: {why}" + (f", but {shown}" if code == "peer_uncertified" and shown else "")
        if code == "peer_unknown" and shown:
            remedy += f" To bind it to its certificate: `countersign peers add {names['calling']} --certificate NAME`, with {shown}."
        remedies.append(remedy)
    remedies += [REFUSALS.get(int(status, 16), _VENDOR).format(**names) for status in ended["refusals"]]
    return how, list(dict.fromkeys(remedies))


_ANYBODY = {"calling": "AE", "called": "by another AE title", "address": "ADDRESS", "id": "ID"}


def _of(code: str) -> tuple[str, str]:
    return _REASONS.get(code) or (_TLS if code.startswith("tls_") else _PROTOCOL)
