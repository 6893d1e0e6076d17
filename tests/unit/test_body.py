"""The report's text: canonical bytes, alignment of plain text, and what may not be stored."""

from __future__ import annotations

import hashlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from record.body import BANNER_DRAFT, EMPTY, Body, Origin, Section, SectionCode, Sentence
from record.errors import InvalidRequest
from record.origins import settle
from record.written import read

MACHINE = Body(
    sections=(
        Section(
            SectionCode.FINDINGS,
            (
                Sentence("findings-m1", "There is an opacity in the left upper zone.", Origin.MACHINE, "findings-m1"),
                Sentence("findings-m2", "The heart is of normal size.", Origin.MACHINE, "findings-m2"),
            ),
        ),
        Section(SectionCode.IMPRESSION, (Sentence("impression-m1", "Left opacity.", Origin.MACHINE, "impression-m1"),)),
    )
)


def from_plain(text: str, former: Body) -> Body:
    return settle(read(text), former)


def test_the_canonical_bytes_are_what_is_hashed_and_read_back() -> None:
    canonical = MACHINE.canonical()
    assert MACHINE.digest() == hashlib.sha256(canonical.encode()).hexdigest()
    assert canonical == json.dumps(json.loads(canonical), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    assert Body.from_canonical(canonical) == MACHINE


def test_an_unchanged_plain_text_changes_nothing() -> None:
    assert from_plain(MACHINE.plain(), MACHINE) == MACHINE


def test_a_changed_line_keeps_its_id_and_becomes_edited() -> None:
    saved = from_plain(MACHINE.plain().replace("left upper zone", "right upper zone"), MACHINE)
    first, second = saved.section(SectionCode.FINDINGS).sentences
    assert (first.id, first.origin, first.source) == ("findings-m1", Origin.EDITED, "findings-m1")
    assert second.origin is Origin.MACHINE


def test_a_new_line_is_human_and_a_deleted_one_leaves_the_others_alone() -> None:
    text = "Findings:\nNew line.\nThe heart is of normal size.\n\nImpression:\nLeft opacity.\n"
    saved = from_plain("Technique:\nOne view.\n" + text, MACHINE)
    assert [s.code for s in saved.sections] == [SectionCode.TECHNIQUE, SectionCode.FINDINGS, SectionCode.IMPRESSION]
    findings = saved.section(SectionCode.FINDINGS).sentences
    assert findings[1] == MACHINE.section(SectionCode.FINDINGS).sentences[1]
    assert saved.section(SectionCode.TECHNIQUE).sentences[0].origin is Origin.HUMAN


def test_a_client_cannot_claim_that_the_machine_wrote_its_words() -> None:
    forged = Body(
        sections=(Section(SectionCode.FINDINGS, (Sentence("x", "Mine.", Origin.MACHINE, "x", ("ab" * 32,)),)),)
    )
    settled = settle(forged, EMPTY)
    assert settled.sections[0].sentences[0] == Sentence("x", "Mine.", Origin.HUMAN)


@pytest.mark.parametrize("spelling", [BANNER_DRAFT, "ai draft - not reviewed", "AI  DRAFT — Not Reviewed"])
def test_a_body_that_contains_the_banner_is_refused(spelling: str) -> None:
    with pytest.raises(InvalidRequest):
        from_plain(f"Findings:\n{spelling} The lungs are clear.", EMPTY)


def test_a_banner_split_over_two_sentences_is_refused_too() -> None:
    with pytest.raises(InvalidRequest):
        from_plain("Findings:\nAI DRAFT -\nNOT REVIEWED", EMPTY)


@given(st.text(max_size=400))
def test_any_text_is_saved_whole_or_refused(text: str) -> None:
    try:
        saved = from_plain(text, EMPTY)
    except InvalidRequest:
        return
    assert Body.from_canonical(saved.canonical()) == saved
    assert from_plain(saved.plain(), saved) == saved


@pytest.mark.parametrize("typed", ["IMPRESSION\nNormal.", "Impression:\nNormal.", "impression : Normal."])
def test_a_heading_is_known_in_any_case_and_without_its_colon(typed: str) -> None:
    saved = from_plain("Findings\nClear.\n" + typed, EMPTY)
    assert [s.text for s in saved.section(SectionCode.IMPRESSION).sentences] == ["Normal."]


def test_a_banner_of_invisible_joints_is_refused() -> None:
    with pytest.raises(InvalidRequest):
        from_plain("Findings:\nAI DR\u200bAFT - NOT REVIE\u2060WED", EMPTY)


@pytest.mark.parametrize("change", [{"language": "x" * 900}, {"language": ""}])
def test_a_language_is_a_tag(change: dict[str, str]) -> None:
    with pytest.raises(InvalidRequest):
        Body.from_dict({**MACHINE.as_dict(), **change})


@pytest.mark.parametrize(
    "dash",
    ["-", "–", "\u2010", "\u2011", "\u2212", " \u200d–\u00ad "],
)
def test_a_banner_is_known_whatever_its_dash_and_whatever_hides_in_it(dash: str) -> None:
    for spelling in (
        f"AI DRAFT {dash} NOT REVIEWED",
        f"AI\u200bDRAFT{dash}NOT\u00a0REVIEWED",
        f"ＡＩ DRAFT{dash}NOT REVIEWED",
    ):
        with pytest.raises(InvalidRequest):
            from_plain(f"Findings:\n{spelling}", EMPTY)


@pytest.mark.parametrize(
    "change",
    [
        {"id": "x" * 65},
        {"id": ""},
        {"id": "a b"},
        {"source": "x" * 65},
        {"pictures": ["ab"]},
        {"pictures": ["A" * 64]},
        {"pictures": ["a" * 64] * 65},
        {"flags": ["x" * 65]},
        {"flags": ["a\x00b"]},
        {"flags": ["x"] * 65},
    ],
)
def test_a_sentence_s_other_parts_are_bounded(change: dict[str, object]) -> None:
    value = MACHINE.as_dict()
    value["sections"][0]["sentences"][0] |= {"pictures": ["a" * 64], "flags": ["cut_short"]}
    Body.from_dict(value)
    value["sections"][0]["sentences"][0] |= change
    with pytest.raises(InvalidRequest):
        Body.from_dict(value)


@pytest.mark.parametrize("language", ["en", "zh", "zh-Hans", "de-CH-1996"])
def test_usual_languages_are_tags(language: str) -> None:
    Body.from_dict({**MACHINE.as_dict(), "language": language})


def test_a_sentence_in_another_s_place_is_a_person_s_own():
    former = Body(sections=(Section(SectionCode.FINDINGS, (
        Sentence(id="findings-m1", text="There is an opacity in the left upper zone.", origin=Origin.MACHINE),
        Sentence(id="findings-m2", text="Compared with the prior study, the opacity has grown.", origin=Origin.MACHINE),
    )),))  # fmt: skip
    saved = from_plain("Findings:\nThere is an opacity in the right upper zone.\nOld healed rib fractures.", former)
    first, second = saved.sections[0].sentences
    assert (first.id, first.origin) == ("findings-m1", Origin.EDITED)
    assert second.origin is Origin.HUMAN
    assert second.id != "findings-m2"


def test_chinese_sentences_are_compared_by_their_characters():
    former = Body(sections=(Section(SectionCode.FINDINGS, (
        Sentence(id="findings-m1", text="左肺上野见片状高密度影。", origin=Origin.MACHINE),
    )),))  # fmt: skip
    assert from_plain("右肺上野见片状高密度影。", former).sections[0].sentences[0].origin is Origin.EDITED
    assert from_plain("肋骨未见骨折。", former).sections[0].sentences[0].origin is Origin.HUMAN


def test_what_was_stored_before_sentences_named_their_draft_reads_back_to_the_same_bytes() -> None:
    stored = (
        '{"language":"en","schema":1,"sections":[{"code":"findings","sentences":[{"flags":[],"id":"findings-m1",'
        '"origin":"edited","pictures":[],"source":"findings-m1","text":"Clear."}]}]}'
    )
    assert Body.from_canonical(stored).canonical() == stored


def test_a_sentence_names_the_draft_of_its_source_where_that_is_another_one() -> None:
    value = MACHINE.as_dict()
    assert "draft" not in value["sections"][0]["sentences"][0]
    value["sections"][0]["sentences"][0]["draft"] = "01923f5e-7d00-7e50-9e60-51a2b3c4d501"
    read_back = Body.from_canonical(Body.from_dict(value).canonical())
    assert read_back.as_dict() == value
    value["sections"][0]["sentences"][0]["draft"] = "findings-m1"
    with pytest.raises(InvalidRequest):
        Body.from_dict(value)


def test_what_was_once_accepted_stays_readable() -> None:
    sentences = tuple(Sentence(f"s{n}", "\u202eNo\u200b " if n % 2 else "", Origin.HUMAN) for n in range(2_000))
    stored = Body(sections=(Section(SectionCode.FINDINGS, sentences),)).canonical()
    assert Body.from_canonical(stored).canonical() == stored
