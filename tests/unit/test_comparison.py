"""What a physician made of the machine's words."""

from __future__ import annotations

from typing import Any

from gateway.web.comparison import Compared, compare
from record.body import Body, Origin, Section, SectionCode, Sentence
from record.origins import settle
from record.written import read

DRAFT = Body(
    sections=(
        Section(
            SectionCode.FINDINGS,
            (
                Sentence("findings-m1", "There is an opacity in the left upper zone.", Origin.MACHINE, "findings-m1"),
                Sentence("findings-m2", "The heart is not enlarged.", Origin.MACHINE, "findings-m2"),
                Sentence("findings-m3", "No effusion is seen.", Origin.MACHINE, "findings-m3"),
            ),
        ),
        Section(SectionCode.IMPRESSION, (Sentence("impression-m1", "肺部阴影。", Origin.MACHINE, "impression-m1"),)),
    )
)


def edited(text: str) -> list[Compared]:
    return compare(DRAFT.as_dict(), settle(read(text), DRAFT).as_dict())


def words(pieces: Any) -> str:
    return "".join(f"[{text}]" if alone else text for text, alone in pieces)


def test_words_that_stand_as_they_were_are_no_difference() -> None:
    assert edited(DRAFT.plain()) == []


def test_a_changed_sentence_shows_which_words_changed() -> None:
    (one,) = edited(DRAFT.plain().replace("left", "right"))
    assert (one.section, one.what) == ("findings", "changed")
    assert words(one.before) == "There is an opacity in the [left] upper zone."
    assert words(one.after) == "There is an opacity in the [right] upper zone."


def test_a_sentence_is_added_and_another_removed() -> None:
    found = edited(
        DRAFT.plain().replace("No effusion is seen.\n", "").replace("肺部阴影。", "肺部阴影。\nCT is advised.")
    )
    assert [(one.section, one.what) for one in found] == [("impression", "added"), ("findings", "removed")]
    assert words(found[0].after) == "[CT is advised.]"
    assert words(found[1].before) == "[No effusion is seen.]"


def test_another_sentence_in_the_same_line_is_no_rewording() -> None:
    found = edited(DRAFT.plain().replace("No effusion is seen.", "Old rib fractures on the right."))
    assert [one.what for one in found] == ["added", "removed"]


def test_a_sentence_that_stands_in_another_section_is_moved() -> None:
    (one,) = edited(
        DRAFT.plain().replace("No effusion is seen.\n", "").replace("肺部阴影。", "肺部阴影。\nNo effusion is seen.")
    )
    assert (one.section, one.what, one.former_section) == ("impression", "moved", "findings")
    assert words(one.before) == words(one.after) == "No effusion is seen."


def test_chinese_is_compared_character_by_character() -> None:
    (one,) = edited(DRAFT.plain().replace("肺部阴影", "肺部大阴影"))
    assert words(one.after) == "肺部[大]阴影。"


def test_all_that_stands_in_a_report_of_ones_own_is_added_and_removed() -> None:
    found = edited("Findings:\nNormal.\n")
    assert [one.what for one in found] == ["added", "removed", "removed", "removed", "removed"]


OFFER = "01923f5e-7d00-7e50-9e60-51a2b3c4d501"


def of_findings(*sentences: Sentence) -> dict[str, Any]:
    return Body(sections=(Section(SectionCode.FINDINGS, sentences),)).as_dict()


def test_sentences_that_stand_in_another_section_are_moved_and_nothing_else() -> None:
    text = "Impression:\nThere is an opacity in the left upper zone.\nNo effusion is seen.\n肺部阴影。\nThe heart is not enlarged."
    assert [one.what for one in edited(text)] == ["moved"] * 3


def test_another_draft_s_sentence_is_not_taken_for_the_one_of_the_same_id() -> None:
    mine = Sentence("findings-m1", "The left lung is clear.", Origin.MACHINE)
    theirs = Sentence("findings-h1", "The right lung is clear.", Origin.MACHINE, "findings-m1", draft=OFFER)
    found = compare(of_findings(mine), of_findings(theirs, mine))
    assert [(one.what, words(one.after)) for one in found] == [("added", "[The right lung is clear.]")]
    (alone,) = compare(of_findings(mine), of_findings(theirs))
    assert words(alone.after) == "The [right] lung is clear.", "what is like it is shown beside it all the same"


def test_a_person_s_sentence_under_a_machine_s_id_is_added() -> None:
    mine = Sentence("findings-m1", "The heart is not enlarged.", Origin.MACHINE)
    found = compare(of_findings(mine), of_findings(Sentence("findings-m1", "The heart is enlarged.", Origin.HUMAN)))
    assert [one.what for one in found] == ["added", "removed"]


def test_two_endless_sentences_are_shown_whole() -> None:
    long = "a b " * 5_000
    draft = of_findings(Sentence("findings-m1", long, Origin.MACHINE))
    (one,) = compare(draft, of_findings(Sentence("findings-m1", "c " + long, Origin.EDITED, "findings-m1")))
    assert (one.what, len(one.before), len(one.after)) == ("changed", 1, 1)
