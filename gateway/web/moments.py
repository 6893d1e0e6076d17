"""What happened to a study, in words: the sentences of its timeline, for pages and for `countersign trace`.

Knows a sentence for every code of `record.timeline`. Does not know where a moment was found.
"""

from __future__ import annotations

from collections.abc import Iterator

from gateway.web import languages
from gateway.web.languages import english
from gateway.web.schemas import MomentShown
from record import alarms
from record.timeline import Moment

_SENTENCES = {
    "arrived": english("{instances} objects ({size}) came from {sender}"),
    "refused": english("refused: {count} objects from {sender} (0x{status}: {reason_code})"),
    "count_unanswered": english("{ae_title} was asked for its count, and did not answer"),
    "count_unknown": english("{ae_title} was asked for its count, and knows none"),
    "study_committed": english("{ae_title} was told that {count} objects are kept (storage commitment)"),
    "closed": english("taken as complete: revision {revision} with {images} images ({evidence_kind})"),
    "skipped": english("closed without an image to read: revision {revision} ({evidence_kind})"),
    "prepared": english("pictures prepared for the model ({protocol})"),
    "reading_done": english("the machine's draft is there ({model})"),
    "reading_abstained": english("not analysed: {reason_code}"),
    "reading_failed": english("the reading failed: {reason_code}"),
    "reading_stumbled": english("an attempt at the reading failed: {reason_code}"),
    "reading_retried": english("the reading was queued again by hand"),
    "lease_lost": english("the worker at the reading died or froze; it was queued again"),
    "study_reopened": english("receiving again"),
    "conflict_decided": english("a conflict was decided"),
    "draft_offered": english("a newer draft is offered beside the report"),
    "report_opened": english("the report was opened"),
    "report_saved": english("the report was saved ({count} times)"),
    "report_preliminary": english("the report was declared preliminary"),
    "report_signed": english("the report was signed"),
    "report_cancelled": english("the report was cancelled"),
    "report_entered_in_error": english("the report was withdrawn"),
    "delivery_queued": english("the report is on its way to {receiver} ({form}): {state}"),
    "delivery_acknowledged": english("{receiver} has the report ({form})"),
}
_CODED = frozenset({"evidence_kind", "reason_code", "state", "form"})


def told(language: str, moment: Moment | MomentShown) -> str:
    """A moment in words of a language."""
    sentence = _SENTENCES.get(moment.code)
    if sentence is None:
        return languages.of_code(language, moment.code)
    values = {
        name: languages.of_code(language, str(value or "")) if name in _CODED else value
        for name, value in moment.facts.items()
    }
    values["size"] = alarms.size(int(moment.facts.get("bytes", 0)))
    values["sender"] = _sender(moment)
    return "; ".join([languages.translate(language, sentence, **values), *_more(language, moment)])


def _sender(moment: Moment | MomentShown) -> str:
    title, address = moment.facts.get("peer_ae_title"), moment.facts.get("peer_address")
    return f"{title} ({address})" if title and address else str(title or address or moment.facts.get("source", ""))


def _more(language: str, moment: Moment | MomentShown) -> Iterator[str]:
    facts = moment.facts
    if facts.get("again"):
        yield languages.translate(language, english("the same bytes came again ({count})"), count=facts["again"])
    if facts.get("conflicts"):
        yield languages.translate(language, english("in conflict: {count}"), count=facts["conflicts"])
    if facts.get("refused"):
        yield languages.translate(
            language, english("besides, refused on the same association: {count}"), count=facts["refused"]
        )
    if facts.get("outcome") not in {None, "released"}:
        yield languages.translate(language, english("the association did not end in good order"))
    expected = (facts.get("evidence") or {}).get("expected")
    if expected is not None:
        yield languages.translate(language, english("the sender's own count is {count}"), count=expected)
