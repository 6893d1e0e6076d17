"""Why an association ended as it did, and what to do about it, in words: for logs, commands and pages.

Knows every code that `association`, `server` and `listener` leave. Does not know associations.
"""

from __future__ import annotations

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
        "it calls us by another AE title",
        "The sender has to call us by COUNTERSIGN_AE_TITLE.",
    ),
    "peer_unknown": ("it is no known sender", "Let the sender in with `countersign peers add AE ADDRESS`."),
    "peer_elsewhere": (
        "its AE title is known at another address",
        "Let the sender in at this address too, with `countersign peers add AE ADDRESS`.",
    ),
    "peer_uncertified": (
        "this sender is bound to a certificate that it did not show",
        "It has to come by the TLS port with the certificate named by `countersign peers list`.",
    ),
    "too_many_associations": (
        "as many associations stand as may",
        "More associations at a time: COUNTERSIGN_MAX_ASSOCIATIONS.",
    ),
    "too_many_of_peer": (
        "this sender has as many associations as it may",
        "Remove the peer and add it with another --max-associations.",
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
    "no_request": (
        "it asked for no association",
        "It is no DICOM sender, or one that expects TLS; find out what it is.",
    ),
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
_PROTOCOL = ("it broke the protocol", "Tell the sender's vendor.")
_TLS = ("TLS failed", "Compare the certificates on both sides; the code is OpenSSL's.")


def remedy_of(code: str) -> str:
    """What to do about it; empty where nothing is to be done."""
    return in_words(code)[1] if code else ""


def told(outcome: str, code: str) -> str:
    """How it ended, in words."""
    words = OUTCOMES.get(outcome, outcome)
    return f"{words}: {in_words(code)[0]}" if code else words


def in_words(code: str) -> tuple[str, str]:
    """What a code means, and what to do about it."""
    return _REASONS.get(code) or (_TLS if code.startswith("tls_") else _PROTOCOL)
