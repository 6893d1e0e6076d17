"""TLS for DICOM: mutual certificates, TLS 1.2 or newer (PS3.15, B.12: BCP 195).

Knows which files make it up, reads them anew when they change, and finds the names in a peer's certificate. Does not know
whose names they are (`peers`).
"""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
import stat
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import structlog

from record.errors import Misconfigured
from record.settings import ListenerSettings, TlsSettings

_logger = structlog.get_logger()


class Tls:
    """Our certificate, its key, and the authorities whose certificates a peer may show.

    Raises
    ------
    Misconfigured
        A file cannot be read, or they do not go together.
    """

    def __init__(self, certificate: Path, key: Path, authorities: Path) -> None:
        self._files = (certificate, key, authorities)
        self._lock = threading.Lock()
        self._stamps = self._seen()
        try:
            self._context = self._load()
        except (OSError, ssl.SSLError, ValueError) as error:
            raise _unusable(error) from None
        _warn_if_shared(key)

    def wrap(self, connection: socket.socket) -> ssl.SSLSocket:
        """The connection as a TLS server has it; the handshake is the caller's to do."""
        return self._current().wrap_socket(connection, server_side=True, do_handshake_on_connect=False)

    def _current(self) -> ssl.SSLContext:
        with self._lock:
            stamps = self._seen()
            if stamps != self._stamps:
                self._stamps = stamps
                try:
                    self._context = self._load()
                    _logger.info("tls_files_read")
                except (OSError, ssl.SSLError, ValueError):
                    _logger.exception("tls_files_unreadable", hint="The former certificates serve on.")
            return self._context

    def _seen(self) -> list[tuple[int, int]]:
        try:
            return [(found.st_mtime_ns, found.st_ino) for found in map(os.stat, self._files)]
        except OSError:
            return []

    def _load(self) -> ssl.SSLContext:
        certificate, key, authorities = self._files
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.verify_mode = ssl.CERT_REQUIRED
        _load(context, certificate, key, authorities)
        return context


def of(settings: ListenerSettings) -> Tls | None:
    """What the settings say; None where there is no port for it.

    Raises
    ------
    Misconfigured
        A file is not named, or cannot be used.
    """
    if settings.dicom_tls_port is None:
        return None
    certificate, key, authorities = settings.dicom_tls_certificate, settings.dicom_tls_key, settings.dicom_tls_ca
    if certificate is None or key is None or authorities is None:
        raise Misconfigured(
            "COUNTERSIGN_DICOM_TLS_PORT is set, so set COUNTERSIGN_DICOM_TLS_CERTIFICATE, COUNTERSIGN_DICOM_TLS_KEY and "
            "COUNTERSIGN_DICOM_TLS_CA as well: peers without a certificate are not taken there."
        )
    return Tls(certificate, key, authorities)


def calling(settings: TlsSettings) -> ssl.SSLContext:
    """How we call a peer that speaks TLS: it has to show a certificate of an authority of ours, and we show our own.

    Its name is not compared with its address: peers are known by IP addresses, which certificates seldom name.

    Raises
    ------
    Misconfigured
        A file is not named, or cannot be used.
    """
    certificate, key, authorities = settings.dicom_tls_certificate, settings.dicom_tls_key, settings.dicom_tls_ca
    if certificate is None or key is None or authorities is None:
        raise Misconfigured(
            "A peer is called over TLS: set COUNTERSIGN_DICOM_TLS_CERTIFICATE, COUNTERSIGN_DICOM_TLS_KEY and COUNTERSIGN_DICOM_TLS_CA."
        )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.check_hostname = False
    try:
        _load(context, certificate, key, authorities)
    except (OSError, ssl.SSLError, ValueError) as error:
        raise _unusable(error) from None
    return context


def names_of(connection: ssl.SSLSocket) -> frozenset[str]:
    """What the peer's certificate is called: its common name, and its alternative names that are DNS names or URIs."""
    certificate: Mapping[str, Any] = connection.getpeercert() or {}
    names = [value for part in certificate.get("subject", ()) for kind, value in part if kind == "commonName"]
    names += [value for kind, value in certificate.get("subjectAltName", ()) if kind in {"DNS", "URI"}]
    return frozenset(map(str, names))


def _load(context: ssl.SSLContext, certificate: Path, key: Path, authorities: Path) -> None:
    for path in (certificate, key, authorities):
        path.open("rb").close()  # OpenSSL does not say which one it cannot read
    context.load_cert_chain(certificate, key, password=_no_password)
    try:
        context.load_verify_locations(authorities)
    except ssl.SSLError:
        raise ValueError(f"{authorities} holds no certificate") from None


def _warn_if_shared(key: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        if key.stat().st_mode & stat.S_IRWXO:  # no more than told: where secrets are mounted, they often are so
            _logger.warning("tls_key_is_readable", hint="Everybody on this machine may read the key: chmod 640.")


def _unusable(error: Exception) -> Misconfigured:
    if isinstance(error, OSError) and not isinstance(error, ssl.SSLError):
        told = f"{error.filename}: {error.strerror}"
    else:
        told = str(getattr(error, "reason", None) or error or type(error).__name__)
    return Misconfigured(
        f"The certificate files for DICOM over TLS cannot be used ({told}). COUNTERSIGN_DICOM_TLS_CERTIFICATE, "
        "_KEY and _CA name PEM files: ours, its key without a password, and the authorities that certify the peers."
    )


def _no_password() -> bytes:
    raise ValueError("the key has a password")  # else the terminal would be asked
