"""Certificates for tests: an authority, and what it certifies, made by OpenSSL's own program."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.conftest import missing


@dataclass(frozen=True)
class Authority:
    """One authority's folder; its certificate is `ca.pem`."""

    folder: Path

    @property
    def certificate(self) -> Path:
        return self.folder / "ca.pem"

    @classmethod
    def made(cls, folder: Path, name: str = "Test Authority") -> Authority:
        if shutil.which("openssl") is None:
            missing("OpenSSL's program is not installed (apt install openssl)")
        folder.mkdir(exist_ok=True)
        _openssl(
            *("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", f"/CN={name}"),
            *("-keyout", folder / "ca.key", "-out", folder / "ca.pem"),
        )
        return cls(folder)

    def certify(self, name: str, *, days: int = 2) -> tuple[Path, Path]:
        """A certificate with this common name and DNS name, and its key."""
        key, request, certificate = (self.folder / f"{name}.{end}" for end in ("key", "csr", "pem"))
        _openssl("req", "-newkey", "rsa:2048", "-nodes", "-subj", f"/CN={name}", "-keyout", key, "-out", request)
        names = self.folder / f"{name}.ext"
        names.write_text(f"subjectAltName=DNS:{name}.example\n")
        _openssl(
            *("x509", "-req", "-in", request, "-CA", self.certificate, "-CAkey", self.folder / "ca.key"),
            *("-CAcreateserial", "-days", str(days), "-extfile", names, "-out", certificate),
        )
        return certificate, key


def _openssl(*arguments: str | Path) -> None:
    subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True, timeout=60)
