#!/usr/bin/env python3
"""Write the tables of docs/ that are made from the code: settings, alarms, reasons, and who may do what.

`--check` only says whether they are as the code has them. Knows where a table stands (between two marks) and how its rows
are read from `record`. Does not know what they mean.
"""

import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydantic import AliasChoices
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from pydicom.uid import UID
from pynetdicom.sop_class import _STORAGE_CLASSES

from gateway.dicom import reasons
from gateway.dicom.arriving import PROCESSING_FAILURE, STATUS, WHEN
from gateway.dicom.association import NO_APPLICATION_CONTEXT, OTHER_PROTOCOL
from gateway.dicom.contexts import RETIRED_SOP_CLASSES, TRANSFER_SYNTAXES, storage_classes
from gateway.dicom.listener import REJECTIONS
from gateway.dicom.server import TOO_MANY, TOO_MANY_OF_PEER
from gateway.dicom.statuses import meaning
from record import settings
from record.access import PERMITTED, SCOPES, Action
from record.alarms import ADVICE, KINDS
from record.states import Role

DOCS = Path(__file__).resolve().parent.parent / "docs"
PROGRAMS: tuple[tuple[str, type[BaseSettings]], ...] = (
    ("every program", settings.Program),
    ("every program but the listener", settings.Base),
    ("whatever sweeps: sweep, workers", settings.Sweeping),
    ("whatever speaks DICOM over TLS: listener, courier, `peers test`, `reconcile`", settings.TlsSettings),
    ("listener", settings.ListenerSettings),
    ("indexer", settings.IndexerSettings),
    ("courier", settings.CourierSettings),
    ("api", settings.ApiSettings),
    ("worker cpu, worker gpu", settings.WorkerSettings),
    ("`countersign up` and `upgrade`, for servers of their own", settings.EmbeddedSettings),
)
MARK = "<!-- {name}: made by scripts/tables.py -->"


def main() -> int:
    """Write, or with --check compare."""
    stale = []
    for path, name, table in (
        (DOCS / "operations.md", "settings", settings_table),
        (DOCS / "operations.md", "alarms", alarms_table),
        (DOCS / "operations.md", "reasons", reasons_table),
        (DOCS / "security.md", "roles", roles_table),
        (DOCS / "conformance.md", "rejections", rejections_table),
        (DOCS / "conformance.md", "tls", tls_table),
        (DOCS / "conformance.md", "statuses", statuses_table),
        (DOCS / "conformance.md", "classes", classes_table),
        (DOCS / "conformance.md", "syntaxes", syntaxes_table),
    ):
        before = path.read_text()
        after = _with_table(before, name, table)
        if after != before:
            stale.append(path.name)
            if "--check" not in sys.argv:
                path.write_text(after)
    if stale and "--check" in sys.argv:
        print(f"not as the code has it: {', '.join(stale)}. Run: make docs")
        return 1
    return 0


def settings_table() -> str:
    """A row for each setting, under the programs that read it; what a parent class has is not repeated."""
    rows = ["| setting | default | what it is |", "|---|---|---|"]
    for programs, cls in PROGRAMS:
        inherited = {name for parent in cls.__mro__[1:] for name in getattr(parent, "model_fields", {})}
        own = {name: field for name, field in cls.model_fields.items() if name not in inherited}
        if own:
            rows.append(f"| **{programs}** | | |")
        rows += [
            f"| `{_variable(cls, name, field)}` | {_default(field)} | {_said(field)} |" for name, field in own.items()
        ]
    return "\n".join(rows)


def roles_table() -> str:
    """A row for each action, a column for each role."""
    added = {pair: scope for scope, pair in SCOPES.items()}
    rows = ["| action | " + " | ".join(Role) + " |", "|---|" + "---|" * len(Role)]
    for action in Action:
        marks = [
            "yes" if action in PERMITTED[role] else f"scope `{added[role, action]}`" if (role, action) in added else ""
            for role in Role
        ]
        rows.append(f"| `{action}` | " + " | ".join(marks) + " |")
    return "\n".join(rows)


def alarms_table() -> str:
    """A row for each alarm."""
    rows = ["| code | severity | what is the matter | what to do |", "|---|---|---|---|"]
    for code, kind in KINDS.items():
        remedy = f"{kind.remedy} `{kind.command}`" if kind.command else kind.remedy
        rows.append(f"| `{code}` | {kind.severity} | {kind.text} | {remedy} |")
    return "\n".join(rows)


def reasons_table() -> str:
    """A row for each reason why a study has no draft."""
    rows = ["| reason | what to do |", "|---|---|"]
    return "\n".join(rows + [f"| `{code}` | {advice} |" for code, advice in ADVICE.items()])


def rejections_table() -> str:
    """A row for each way in which an association is rejected."""
    rows = ["| result, source, reason | when | what to do |", "|---|---|---|"]
    for each in [NO_APPLICATION_CONTEXT, OTHER_PROTOCOL, *REJECTIONS, TOO_MANY, TOO_MANY_OF_PEER]:
        why, remedy = reasons.in_words(each.code)
        rows.append(f"| {each.result}, {each.source}, {each.reason} | {why} | {remedy} |")
    return "\n".join(rows)


def tls_table() -> str:
    """A row for each way in which TLS fails, and what to do about it."""
    rows = ["| what fails | what to do |", "|---|---|"]
    return "\n".join(rows + ["| {} | {} |".format(*reasons.in_words(code)) for code in ("speaks_tls", *reasons.OF_TLS)])


def statuses_table() -> str:
    """A row for each status of C-STORE; each means the same to our own `countersign send`."""
    rows = [
        "| status | when | as `countersign send` tells it |",
        "|---|---|---|",
        "| 0x0000 | the instance is durable | |",
    ]
    listed = [(status, WHEN[error]) for error, status in STATUS]
    for status, when in [*listed, (PROCESSING_FAILURE, "a fault of ours; the listener's log has it")]:
        rows.append(f"| 0x{status:04X} | {when} | {meaning(status)} |")
    return "\n".join(rows)


def classes_table() -> str:
    """A row for each storage class."""
    rows = ["| SOP class | UID |", "|---|---|"]
    named = {each: str(UID(each).name) for each in storage_classes()}
    for each, name in named.items():
        known = RETIRED_SOP_CLASSES.get(each) or (name if name != each else _keyword(each))
        rows.append(f"| {known} | {each} |")
    return "\n".join(rows)


def syntaxes_table() -> str:
    """A row for each transfer syntax, in our order."""
    rows = ["| | transfer syntax | UID |", "|---|---|---|"]
    return "\n".join(
        rows + [f"| {number} | {each.name} | {each} |" for number, each in enumerate(TRANSFER_SYNTAXES, 1)]
    )


def _keyword(sop_class_uid: str) -> str:
    """What pynetdicom calls a class that pydicom's dictionary does not have yet."""
    return next((name for name, uid in _STORAGE_CLASSES.items() if uid == sop_class_uid), sop_class_uid)


def _with_table(text: str, name: str, table: Callable[[], str]) -> str:
    mark = MARK.format(name=name)
    start, end, rest = text.partition(mark)
    if not end:
        raise SystemExit(f"the mark {mark} is missing")
    _, _, rest = rest.partition("<!-- end -->")
    return f"{start}{mark}\n{table()}\n<!-- end -->{rest}"


def _variable(cls: type[BaseSettings], name: str, field: FieldInfo) -> str:
    alias: Any = field.validation_alias
    if isinstance(alias, AliasChoices):
        return str(alias.choices[0])
    return f"{cls.model_config.get('env_prefix', '')}{name}".upper()


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "needed"
    return "" if field.default in {None, ()} else f"`{field.default}`"


def _said(field: FieldInfo) -> str:
    return re.sub(r"\s+", " ", field.description or "").replace("|", "\\|")


if __name__ == "__main__":
    sys.exit(main())
