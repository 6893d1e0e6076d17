"""Model text becomes sections of sentences, or is refused."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from record.body import Body, Origin, SectionCode
from record.errors import UnusableFindings
from record.headings import HEADINGS
from record.origins import Said, settle
from record.written import read, taken
from worker import protocols
from worker.findings import parse, to_body

GENERAL = next(p for p in protocols.load_all() if p.name == "general")
PHANTOM = next(p for p in protocols.load_all() if p.name == "phantom-chest")
DIGEST = "a" * 64


def lines(text, protocol=GENERAL):
    return {s.code.value: [x.text for x in s.sentences] for s in parse(text, protocol, [DIGEST]).sections}


def test_the_phantoms_report_is_read_exactly():
    text = "Findings: There is an opacity in the left upper zone. The heart is enlarged.\nImpression: Opacity in the left upper zone. Cardiomegaly."
    findings = parse(text, PHANTOM, [DIGEST, DIGEST])
    body = to_body(findings)
    assert [s.id for _, s in body.sentences()] == ["findings-m1", "findings-m2", "impression-m1", "impression-m2"]
    assert all(s.origin is Origin.MACHINE and s.pictures == (DIGEST,) for _, s in body.sentences())
    assert body.plain().startswith("Findings:\nThere is an opacity in the left upper zone.\nThe heart is enlarged.\n")
    assert findings.flags == ()
    assert Body.from_canonical(body.canonical()) == body


@pytest.mark.parametrize(
    "text",
    [
        "FINDINGS:\nClear lungs.\n\nIMPRESSION:\nNormal.",
        "**Findings:** Clear lungs.\n**Impression:** Normal.",
        "## Findings\n- Clear lungs.\n\n## Impression\n1. Normal.",
        "Findings: Clear lungs.  Impression: Normal.",
        "Impression: Normal.\nFindings: Clear lungs.",
        "**Findings**:\n* **Clear lungs.**\n\n**Conclusion**:\nNormal.",
    ],
)
def test_headings_are_found_however_they_are_marked_up(text):
    assert lines(text) == {"findings": ["Clear lungs."], "impression": ["Normal."]}


def test_chinese_headings_and_sentences_are_read():
    findings = parse("影像所见：左肺上叶见片状影。心影增大。\n印象：左肺上叶炎症。", GENERAL, [])
    assert [s.text for _, s in findings.sentences()] == ["左肺上叶见片状影。", "心影增大。", "左肺上叶炎症。"]
    assert findings.language == "zh"


def test_decimals_and_abbreviations_do_not_end_a_sentence():
    text = "Findings: A nodule of approx. 1.5 cm vs. a vessel at L4. No effusion, e.g. none."
    assert lines(text)["findings"] == ["A nodule of approx. 1.5 cm vs. a vessel at L4.", "No effusion, e.g. none."]


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        (
            "Hay un nódulo de aprox. 12 mm. Óseo sin lesiones. ¿Derrame? No. Índice normal. ¡Atención! «Nada» más.",
            [
                "Hay un nódulo de aprox. 12 mm.",
                *("Óseo sin lesiones.", "¿Derrame?", "No.", "Índice normal.", "¡Atención!", "«Nada» más."),
            ],
        ),
        (
            "Informado por el Dr. Pérez y la Dra. Núñez. Se ve, p. ej. TC, un nódulo. Véase la fig. 2. Fin.",
            ["Informado por el Dr. Pérez y la Dra. Núñez.", "Se ve, p. ej. TC, un nódulo.", "Véase la fig. 2.", "Fin."],
        ),
        ("Costilla núm. 5 y pág. 3. No. 4 normal.", ["Costilla núm. 5 y pág. 3.", "No. 4 normal."]),
        ("Pulmón izq. Sin derrame.", ["Pulmón izq.", "Sin derrame."]),
        ("Is there an effusion? No. The lungs are clear.", ["Is there an effusion?", "No.", "The lungs are clear."]),
        ("See image no. 3. The rest is clear.", ["See image no. 3.", "The rest is clear."]),
        ("1. Nodule. 2. Effusion of 1.5 cm. (3) Clear.", ["Nodule.", "Effusion of 1.5 cm.", "Clear."]),
        ("左肺清晰。右肺见结节；心影不大！请结合临床。", ["左肺清晰。", "右肺见结节；", "心影不大！", "请结合临床。"]),
        (
            "所见如“未见异常。”右肺清晰（已复核。）左肺清晰。",
            ["所见如“未见异常。”", "右肺清晰（已复核。）", "左肺清晰。"],
        ),
        ("左肺清晰.右肺见1.5cm结节. 心影不大", ["左肺清晰.", "右肺见1.5cm结节.", "心影不大"]),
        ("1.左肺清晰。2.右肺见结节。3、心影不大。", ["左肺清晰。", "右肺见结节。", "心影不大。"]),
        ("（1）左肺清晰。（2）右肺见结节。", ["左肺清晰。", "右肺见结节。"]),
        ("①左肺清晰。②右肺见结节。", ["左肺清晰。", "右肺见结节。"]),
    ],
)
def test_sentences_end_where_a_reader_of_the_language_sees_an_end(text, sentences):
    assert lines(text) == {"findings": sentences}


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("The lungs are clear and there is no effusion in the pleural space.", "en"),
        ("Los campos pulmonares están bien aireados y no se observa derrame en la base.", "es"),
        ("Normal.", "en"),
        ("双肺清晰。", "zh"),
        ("胸部CT示双肺未见异常。", "zh"),
    ],
)
def test_the_language_is_the_one_asked_for_or_the_one_the_answer_is_in(text, language):
    assert parse(text, GENERAL, []).language == language
    assert [parse(text, GENERAL, [], language=asked).language for asked in ("en", "es", "zh")] == ["en", "es", "zh"]
    assert to_body(parse(text, GENERAL, [], language="es")).language == "es"


def test_nothing_is_drafted_in_a_language_without_phrases():
    with pytest.raises(ValueError, match="en, es, zh"):
        parse("Die Lunge ist frei.", GENERAL, [], language="de")


def test_text_without_headings_is_findings_and_flagged_unless_the_protocol_requires_them():
    findings = parse("The lungs are clear.", GENERAL, [])
    assert findings.sections[0].code is SectionCode.FINDINGS
    assert [f.name for f in findings.flags] == ["no_headings"]
    with pytest.raises(UnusableFindings):
        parse("The lungs are clear.", PHANTOM, [])


@pytest.mark.parametrize(
    "text",
    [
        "",
        " \n\t ",
        "!!!!!!!!!!!!!!!!",
        "lung lung lung lung lung lung lung lung lung",
        "Findings:\nImpression:\n",
        "The heart is big. " * 40,
        "\x00\x07\u202e",
    ],
)
def test_noise_is_refused(text):
    with pytest.raises(UnusableFindings):
        parse(text, GENERAL, [])


def test_banners_and_control_characters_do_not_survive():
    text = "AI DRAFT – NOT REVIEWED\nFindings: AI AI DRAFT - NOT REVIEWED DRAFT — not reviewed Clear\x1b[31m lungs\u202e.\x00"
    assert lines(text) == {"findings": ["Clear[31m lungs."]}


def test_a_banner_that_headings_would_put_together_is_refused():
    with pytest.raises(UnusableFindings):
        parse("Findings: AI\nImpression: DRAFT - NOT REVIEWED", GENERAL, [])


def test_an_endless_answer_is_cut_and_says_so():
    text = "Findings: " + " ".join(f"Observation number {n} is seen." for n in range(3000)) + " " + "x" * 3000
    findings = parse(text, GENERAL, [])
    assert sum(1 for _ in findings.sentences()) == 200
    assert "cut_short" in [f.name for f in findings.flags]
    long = parse("Findings: " + "word " * 10 + "y" * 2000, GENERAL, [])
    assert long.sections[0].sentences[0].flags == ("cut_short",)


def test_what_nobody_sees_does_not_survive_and_stops_no_draft():
    text = "Findings: \ufeffNo\u202e ef\u00adfu\u200bsion\u2066 is\u3164 seen\u2069.\u034f\nImpression: Nor\u200dmal."
    findings = parse(text, GENERAL, [])
    assert [s.text for _, s in findings.sentences()] == ["No effusion is seen.", "Normal."]
    assert taken(to_body(findings)) == to_body(findings), "a physician can save it"


@pytest.mark.parametrize(
    "text", ["Hallazgos: Claros.\nImpresión: Normal.", "HALLAZGOS\nClaros.\n\n**Impresion:** Normal."]
)
def test_spanish_headings_are_read_with_and_without_their_accents(text):
    assert lines(text) == {"findings": ["Claros."], "impression": ["Normal."]}


PARTS = st.lists(
    st.sampled_from([word for words in HEADINGS.values() for word in words])
    | st.sampled_from(
        [
            *":：.。;；!？,，)\"'”）①¿",
            "1.",
            "2、",
            ". ",
            "。",
            ": ",
            "\n",
            " ",
            "  ",
            "• ",
            "(1) ",
            "2. ",
            "**",
            "# ",
            "- ",
            "a) ",
        ]
    )
    | st.sampled_from(
        ["Clear lungs", "None", "右肺结节", "No effusion", "AI DRAFT", "NOT REVIEWED", "UNSIGNED", "3 cm"]
    ),
    max_size=30,
).map("".join)


@given(PARTS)
def test_a_draft_that_is_saved_as_the_editor_shows_it_stays_what_it_is(text):
    try:
        draft = to_body(parse(text, GENERAL, [DIGEST]))
    except UnusableFindings:
        return
    taken(draft)
    known = [Said(sentence, datetime(2026, 1, 2, tzinfo=UTC)) for _, sentence in draft.sentences()]
    saved = settle(read(draft.plain()), draft, known)
    assert [(c, s.text, s.origin) for c, s in saved.sentences()] == [
        (c, s.text, s.origin) for c, s in draft.sentences()
    ]


def test_a_heading_that_only_the_editor_would_know_begins_a_section_in_a_draft_too():
    assert lines("影像所见：双肺清晰。诊断：右肺癌。建议：复查CT。") == {
        "findings": ["双肺清晰。"],
        "impression": ["右肺癌。"],
        "recommendations": ["复查CT。"],
    }
    assert lines("Clinical  information: Pain.\nFindings:\n• Clear.\n• Comparison: None.\nUNSIGNED\nStable.") == {
        "clinical_information": ["Pain."],
        "comparison": ["None.", "Stable."],
        "findings": ["Clear."],
    }
