"""Guardrails name what is odd, change no word, and abstain where the protocol says so."""

from dataclasses import dataclass

import pytest

from record.errors import Abstained
from tests.unit.checked import CONTEXT, GENERAL, PHANTOM, completion, flags
from worker import protocols
from worker.checks import CHECKS, Asked, check, gate_pictures
from worker.findings import parse, parse_steps
from worker.prompting import ReadingContext


@dataclass
class Shown:
    blank: bool = False


GOOD = "Findings: There is an opacity in the left upper zone. The heart size is normal.\nImpression: Opacity in the left upper zone."


def test_a_sound_report_has_no_flag():
    assert flags(GOOD) == set()
    assert flags("Findings: The lungs are clear. The heart size is normal.\nImpression: No acute abnormality.") == set()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            GOOD.replace("Impression: Opacity in the left", "Impression: Opacity in the right"),
            ("laterality", "impression-m1"),
        ),
        (GOOD.split("\n", maxsplit=1)[0] + "\nImpression: No acute abnormality.", ("contradiction", "impression-m1")),
        ("Findings: The opacity is unchanged.\nImpression: Opacity.", ("prior", "findings-m1")),
        ("Findings: Compared to the prior study it grew.\nImpression: Opacity.", ("prior", "findings-m1")),
        ("Findings: A nodule of 12 x 8 mm.\nImpression: Nodule.", ("measurement", "findings-m1")),
        ("Findings: The prostate is large.\nImpression: Large prostate.", ("sex", "findings-m1")),
        ("Findings: A 12-year-old with clear lungs.\nImpression: Normal.", ("age", "findings-m1")),
        ("Findings: Contrast-enhanced images show no embolus.\nImpression: Normal.", ("contrast", "findings-m1")),
        ("Findings: This MRI shows a clear lung.\nImpression: Normal.", ("modality", "findings-m1")),
        ("Findings: As an AI I see clear lungs.\nImpression: Normal.", ("meta_talk", "findings-m1")),
        ("Findings: Clear lungs.", ("missing_impression", None)),
        ("Findings: Clear lungs.", ("missing_section", None)),
        ("Findings: Clear lungs. Clear lungs.\nImpression: Normal.", ("repetition", "findings-m2")),
    ],
)
def test_each_check_names_its_sentence(text, expected):
    assert expected in flags(text)


@pytest.mark.parametrize(
    "text",
    [
        "Findings: No prior study is available for comparison. Clear lungs.\nImpression: Normal.",
        "Findings: A female patient. The uterus is normal.\nImpression: Normal chest.",
        "Findings: The right lung is clear. There is an opacity on the left.\nImpression: Left opacity. CT may help.",
    ],
)
def test_what_is_not_odd_is_not_flagged(text):
    assert flags(text) == set()


def test_a_side_that_was_not_examined_is_flagged():
    context = ReadingContext(modality="CR", laterality="L")
    assert ("laterality", "findings-m1") in flags(
        "Findings: Fracture of the right wrist.\nImpression: Fracture.", context=context
    )


def test_a_prior_that_was_given_may_be_spoken_of():
    context = ReadingContext(modality="CR", prior_report="Clear lungs.")
    assert flags("Findings: The lungs are unchanged.\nImpression: Normal.", context=context) == set()


def test_a_cut_answer_flags_draft_and_last_sentence_and_abstains_where_the_protocol_says_so():
    assert {("truncated", None), ("truncated", "impression-m1")} <= flags(GOOD, finish="length")
    with pytest.raises(Abstained) as told:
        flags(GOOD, protocol=PHANTOM, finish="length")
    assert told.value.reason_code == "checks_failed"


def test_flags_stand_in_the_sentences():
    findings = parse("Findings: A nodule of 12 mm, unchanged.\nImpression: Nodule.", GENERAL, [])
    checked, _ = check(findings, GENERAL, CONTEXT, [completion()])
    assert checked.sections[0].sentences[0].flags == ("prior", "measurement")


def test_every_check_a_protocol_may_name_exists():
    assert set(CHECKS) == protocols.CHECKS


@pytest.mark.parametrize(
    ("protocol", "pictures", "expected", "reason"),
    [
        (GENERAL, [], 0, "no_usable_frames"),
        (GENERAL, [Shown()], 2, "undecodable"),
        (GENERAL, [Shown(blank=True)], 1, "blank_picture"),
        (GENERAL, [Shown(), Shown(blank=True), Shown(blank=True)], 3, "blank_picture"),
        (PHANTOM, [Shown(), Shown(blank=True)], 2, "blank_picture"),
    ],
)
def test_the_gate_says_not_analysed_with_its_reason(protocol, pictures, expected, reason):
    with pytest.raises(Abstained) as told:
        gate_pictures(protocol, pictures, expected=expected)
    assert told.value.reason_code == reason


def test_some_blank_slices_pass_the_general_gate_and_are_flagged():
    shown = [Shown(), Shown(blank=True)]
    gate_pictures(GENERAL, shown, expected=2)
    assert flags(GOOD, pictures=shown) == {("blank_picture", None)}


ASKING = protocols.load("""
name: asking
version: 1
title: Asking
match: {modalities: [CR]}
steps: [{name: draft}]
sections: [findings, impression]
checks: [asked]
""")


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        ({"opacity": True, "effusion": False}, set()),
        ({"effusion": True}, {("asked", None)}),
        ({"pneumothorax": True}, {("asked", None)}),  # denied, which is not named
        ({"opacity": False}, {("asked", "findings-m1"), ("asked", "impression-m1")}),
        ({"pneumothorax": False}, set()),
    ],
)
def test_an_answer_that_the_description_does_not_bear_out_is_flagged(answers, expected):
    words = {"opacity": ("opacit", "shadow"), "effusion": ("effusion",), "pneumothorax": ("pneumothorax",)}
    asked = [Asked(name, "?", words[name], is_yes, 0.9, 1.0) for name, is_yes in answers.items()]
    text = "Findings: Opacity in the left upper zone. No pneumothorax.\nImpression: Opacity in the left upper zone."
    _, found = check(parse(text, ASKING, []), ASKING, CONTEXT, [completion()], asked=asked)
    assert {(f.name, f.sentence) for f in found} == expected


def test_several_steps_make_one_text_and_each_answer_goes_to_its_section():
    describe, conclude = (protocols.Step(name=n, kind=n) for n in ("describe", "impression"))
    said = [
        (describe, "There is an opacity. The heart is normal."),
        (conclude, "Findings: There is an opacity. Impression: Pneumonia is likely."),
    ]
    found = parse_steps(said, ASKING, [])
    assert [(c.value, s.text) for c, s in found.sentences()] == [
        ("findings", "There is an opacity."),
        ("findings", "The heart is normal."),
        ("impression", "Pneumonia is likely."),
    ]
    bare = parse_steps([said[0], (conclude, "Pneumonia is likely.")], ASKING, [])
    assert [c.value for c, _ in bare.sentences()] == ["findings", "findings", "impression"]
