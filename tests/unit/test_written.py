"""What may be saved: how long, of which characters, and where a section begins."""

from __future__ import annotations

import unicodedata

import pytest

from gateway.web.languages import NAMES, of_code
from record.body import Body, Origin, Section, SectionCode, Sentence
from record.errors import InvalidRequest
from record.headings import HEADINGS
from record.written import MAX_SENTENCES, Written, read, taken


def lines(text: str) -> dict[str, list[str]]:
    return {code.value: list(sentences) for code, sentences in read(text).sections}


def body(*texts: str) -> Body:
    sentences = (Sentence(f"s{n}", text, Origin.HUMAN) for n, text in enumerate(texts))
    return Body(sections=(Section(SectionCode.FINDINGS, tuple(sentences)),))


@pytest.mark.parametrize("code", SectionCode)
def test_every_section_is_begun_in_every_language_of_the_pages(code: SectionCode) -> None:
    for heading in {code.title, *(of_code(language, code) for language in NAMES), *HEADINGS[code]}:
        plain = "".join(c for c in unicodedata.normalize("NFD", heading) if unicodedata.category(c) != "Mn")
        for typed in (f"{heading}:\nWords.", f"{heading.upper()} : Words.", f"{plain}：Words.", f"{heading}\nWords."):
            assert lines(typed) == {code.value: ["Words."]}, typed


def test_a_heading_behind_a_heading_begins_a_section_too() -> None:
    assert lines("Findings: Impression: Clear.") == {"findings": [], "impression": ["Clear."]}


def test_a_word_within_a_sentence_is_no_heading() -> None:
    assert lines("The findings: two nodules.\nNo history of trauma.") == {
        "findings": ["The findings: two nodules.", "No history of trauma."]
    }


def test_a_text_of_as_many_lines_as_a_report_may_have_is_read_and_one_more_is_refused() -> None:
    assert isinstance(read("Findings:\n\n" + "Line.\n\n" * MAX_SENTENCES), Written)
    with pytest.raises(InvalidRequest, match="300 sentences at most, one a line; this one holds 301"):
        read("Line.\n" * (MAX_SENTENCES + 1))
    taken(body(*["Line."] * MAX_SENTENCES))
    with pytest.raises(InvalidRequest, match="300"):
        taken(body(*["Line."] * (MAX_SENTENCES + 1)))
    with pytest.raises(InvalidRequest, match="50000"):
        read("x" * 50_001)


@pytest.mark.parametrize("text", ["", "  ", "\ufeff"])
def test_an_empty_sentence_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequest, match="Sentence 2 is empty"):
        taken(body("Clear.", text))


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("No\u202e effusion.", "U\\+202E"),
        ("\u2066No effusion.\u2069", "U\\+2066"),
        ("No\u200b effusion.", "U\\+200B"),
        ("No\u200d effusion.", "U\\+200D"),
        ("肺\u200c野清晰。", "U\\+200C"),
        ("No\u3164effusion.", "U\\+3164"),
        ("No effusion.\U000e0041", "U\\+E0041"),
    ],
)
def test_what_nobody_sees_is_refused_by_its_name_and_place(text: str, named: str) -> None:
    with pytest.raises(InvalidRequest, match=f"Line 3 holds the character {named},"):
        read(f"Findings:\nClear.\n{text}")
    with pytest.raises(InvalidRequest, match=f"Sentence 2 holds the character {named},"):
        taken(body("Clear.", text))


def test_a_control_character_is_refused_by_its_name_and_place() -> None:
    with pytest.raises(InvalidRequest, match=r"Line 1 holds the character U\+0007,"):
        read("No\x07 effusion.")


@pytest.mark.parametrize("text", ["نمی\u200cشود", "क्\u200dष", "اضافه\u200cها دیده می\u200cشود."])
def test_joiners_stay_where_a_script_needs_them(text: str) -> None:
    assert lines(text) == {"findings": [text]}
    assert taken(body(text)) == body(text)


def test_marks_of_a_paste_that_change_nothing_to_see_are_dropped() -> None:
    assert lines("\ufeffFindings:\nNo pleu\u00adral effusion.") == {"findings": ["No pleural effusion."]}
    assert taken(body("\ufeffNo pleu\u00adral effusion.")) == body("No pleural effusion.")


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r", "\u2028", "\u2029", "\v", "\f", "\x85"])
def test_every_line_end_ends_a_sentence(end: str) -> None:
    assert lines(f"One.{end}Two.") == {"findings": ["One.", "Two."]}


@pytest.mark.parametrize(
    "banner", ["UNSIGNED", "unsigned.", "** Unsigned **", "ＵＮＳＩＧＮＥＤ", "AI DRAFT NOT REVIEWED"]
)
@pytest.mark.parametrize("dash", ["", "─", "·", ":", "ー", "˗", "⁃", "~"])
def test_what_we_put_over_unsigned_words_is_never_stored(banner: str, dash: str) -> None:
    spelled = banner.replace(" NOT", f" {dash} NOT")
    with pytest.raises(InvalidRequest, match="banner"):
        read(f"{spelled}\n\nFindings:\nClear.")
    with pytest.raises(InvalidRequest, match="banner"):
        taken(body("Clear.", spelled))
    assert lines("The consent form is unsigned.") == {"findings": ["The consent form is unsigned."]}


def test_a_sentence_that_would_begin_a_section_as_plain_text_is_refused() -> None:
    for words in ("Impression:", "Impression: Carcinoma.", " 诊断：右肺癌。"):
        with pytest.raises(InvalidRequest, match="heading of a section"):
            taken(body("Clear.", words))
    assert taken(body("The impression: carcinoma."))


def test_the_choice_of_a_glyph_is_dropped_or_stands_where_a_script_needs_it() -> None:
    assert lines("Clear\ufe0e lungs ✔\ufe0f.") == {"findings": ["Clear lungs ✔."]}
    assert lines("葛\U000e0100") == {"findings": ["葛\U000e0100"]}
    for unseen in ("\U000e0100", "\u180b", "\u2065", "\U000e0021"):
        with pytest.raises(InvalidRequest, match="nobody sees"):
            read(f"Clear{unseen} lungs.")
