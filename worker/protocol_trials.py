"""`protocols match`: which studies each protocol is for, and what a changed one would change.

Knows options and what is printed: of a study its UID alone. Does not know how a protocol is matched (`worker.protocols`), nor
where the studies are found (`record.recent`).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from record.terminal import as_json, counted, example, print_indented, print_json, print_table, printable, say
from worker.protocol_commands import FILE, at_site, protocols, read_protocol, which_site

if TYPE_CHECKING:
    from record.instances import InstanceHeader
    from worker.protocols import Protocol
    from worker.site_protocols import SiteProtocols

__all__ = ["match", "protocols"]
_LINES = 50
"""Studies that are named of each kind, without --json."""


class _Age(click.ParamType[float]):
    """How long ago, in days."""

    name = "age"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Days."""
        if isinstance(value, float):
            return value
        told = str(value)
        if found := re.fullmatch(r"([0-9]{1,4})([hdw])", told):
            return int(found[1]) * {"h": 1 / 24, "d": 1.0, "w": 7.0}[found[2]]
        return self.fail(f"{printable(told)!r} is no age such as 12h, 30d or 8w.", param, ctx)


@protocols.command(
    "match",
    short_help="Say which studies each protocol is for.",
    epilog=example("countersign protocols match --last 30d", "countersign protocols match mine.yaml --last 8w --json"),
)
@click.argument("file", required=False, type=FILE)
@click.option(
    "--last", "days", type=_Age(), default="30d", show_default=True, metavar="AGE", help="Studies that came since then."
)
@which_site
@as_json
def match(file: Path | None, days: float, site: str | None, *, json: bool) -> None:
    """Say how many of the site's studies each protocol is for, and what is in those that none is for.

    With FILE, a new or changed protocol: which studies it would take, and from which protocol; which it would lose, and to which.
    Nothing is changed. Studies are those that were taken as complete; each is named by its UID, and nothing else of it is shown.
    """
    from record.recent import recent_studies
    from worker.site_protocols import site_protocols, with_changed

    changed = read_protocol(file)[1] if file is not None else None
    with at_site(site) as (session, at):
        of_site = site_protocols(session, at.id)
        found = _Matched()
        after = with_changed(of_site, changed) if changed is not None else None
        for study in recent_studies(session, at.id, days=days):
            now = _name_of(of_site.tried, study.headers, at.name)
            then = _name_of(after, study.headers, at.name) if after is not None else now
            found.take(study.study_instance_uid, study.headers, now, then)
    _warn_of_unreadable(of_site)
    if json:
        print_json(found.as_dict(of_site, changed))
    elif changed is None:
        _print_matched(found, of_site)
    else:
        _print_changed(found, changed)


@dataclass(slots=True)
class _Matched:
    """Counts by the protocol's name (None: no protocol is for it), and the studies that go from one to another."""

    studies: int = 0
    of: Counter[str | None] = field(default_factory=Counter)
    nothing_for: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    """Modality, SOP class and Body Part Examined of what no protocol is for."""
    unmatched: list[str] = field(default_factory=list)
    moves: dict[tuple[str | None, str | None], list[str]] = field(default_factory=dict)

    def take(self, uid: str, headers: Iterable[InstanceHeader], now: str | None, then: str | None) -> None:
        self.studies += 1
        self.of[now] += 1
        if now is None:
            self.unmatched.append(uid)
            self.nothing_for.update({(h.modality, h.sop_class_uid, h.body_part_examined) for h in headers})
        if then != now:
            self.moves.setdefault((now, then), []).append(uid)

    def as_dict(self, of_site: SiteProtocols, changed: Protocol | None) -> dict[str, Any]:
        told: dict[str, Any] = {
            "studies": self.studies,
            "protocols": {each.name: self.of[each.name] for each in of_site.tried},
            "unmatched": {
                "studies": self.of[None],
                "kinds": [
                    {"modality": kind[0], "sop_class_uid": kind[1], "body_part_examined": kind[2], "studies": count}
                    for kind, count in self.nothing_for.most_common()
                ],
                "study_instance_uids": self.unmatched,
            },
        }
        if changed is not None:
            told["changed"] = {"name": changed.name, "version": changed.version, "digest": changed.digest}
            told["moves"] = [
                {"from": now, "to": then, "study_instance_uids": uids} for (now, then), uids in self.moves.items()
            ]
        return told


def _print_matched(found: _Matched, of_site: SiteProtocols) -> None:
    rows = [(each.name, each.version, found.of[each.name]) for each in of_site.tried]
    print_table(("PROTOCOL", "VERSION", "STUDIES"), rows)
    say(f"{counted(found.studies, 'study', 'studies')}; no protocol is for {found.of[None]}")
    if not found.of[None]:
        return
    from pydicom.uid import UID

    click.echo()
    kinds = [
        (modality, body_part, count, UID(sop_class_uid).name)
        for (modality, sop_class_uid, body_part), count in found.nothing_for.most_common(_LINES)
    ]
    print_table(("MODALITY", "BODY PART", "STUDIES", "SOP CLASS"), kinds)
    click.echo()
    _print_uids(found.unmatched)


def _print_changed(found: _Matched, changed: Protocol) -> None:
    taken = sum(len(uids) for (_, then), uids in found.moves.items() if then == changed.name)
    lost = sum(len(uids) for (now, _), uids in found.moves.items() if now == changed.name)
    say(
        f"of {counted(found.studies, 'study', 'studies')}, {changed.name} version {changed.version} "
        f"would take {taken} more and lose {lost}"
    )
    for (now, then), uids in sorted(found.moves.items(), key=lambda move: -len(move[1])):
        came, goes = now or "no protocol", then or "no protocol"
        click.echo(f"{counted(len(uids), 'study', 'studies')} from {came} to {goes}")
        _print_uids(uids)


def _print_uids(uids: list[str]) -> None:
    for uid in uids[:_LINES]:
        print_indented(uid)
    if len(uids) > _LINES:
        print_indented(f"and {len(uids) - _LINES} more: --json has all")


def _warn_of_unreadable(of_site: SiteProtocols) -> None:
    for name in of_site.unreadable:
        say(f"this release cannot read the site's own {name}, and leaves it out: see `countersign protocols list`")


def _name_of(tried: tuple[Protocol, ...], headers: tuple[InstanceHeader, ...], site: str) -> str | None:
    from record.instances import StoredInstance
    from worker.protocols import match as first_of

    found = first_of(tried, [StoredInstance("", "", header) for header in headers], site)
    return found.name if found is not None else None
