"""Reading protocols: their form, which fits a study, which model may be asked, and what the shipped ones say."""

import re
from dataclasses import replace
from pathlib import Path
from string import Formatter
from typing import Any

import pytest
import yaml
from pydantic import TypeAdapter

from record.errors import Abstained, Misconfigured
from record.instances import InstanceHeader, StoredInstance
from worker import protocols
from worker.phantom import MODEL_DIR, QUESTION
from worker.protocols import (
    Match,
    admit,
    bind,
    load,
    load_all,
    match,
    match_or_abstain,
    patient_age,
    pictures,
    says,
    schema,
    with_own,
)
from worker.protocols.wording import wording_of

CLASS = "1.2.840.10008.5.1.4.1.1."
CT, DX, SM, SR = (CLASS + n for n in ("2", "1.1", "77.1.6", "88.22"))
PHOTO, DERMOSCOPY, FUNDUS, ENDOSCOPY = (CLASS + n for n in ("77.1.4", "77.1.7", "77.1.5.1", "77.1.1"))
MINIMAL = """
name: small
version: 1
title: Small
match: {modalities: [CT]}
steps: [{name: draft, user: Describe the picture.}]
sections: [findings]
"""
LANGUAGES = ("en", "es", "zh")


def instance(**values):
    values = {"sop_class_uid": CT, "modality": "CT", "has_pixels": True, "bits_allocated": 16, **values}
    header = InstanceHeader(
        study_instance_uid="1.1",
        series_instance_uid="1.2",
        sop_instance_uid="1.3",
        transfer_syntax_uid="1.2.840.10008.1.2.1",
        **values,
    )
    return StoredInstance("i1", "0" * 64, header)


def phantom(**values):
    return instance(
        **{
            "sop_class_uid": DX,
            "modality": "DX",
            "body_part_examined": "CHEST",
            "study_description": "Chest phantom",
            **values,
        }
    )


def named(name):
    return next(p for p in load_all() if p.name == name)


def found_for(*instances):
    found = match(load_all(), instances)
    return found.name if found else None


def test_shipped_protocols_load_with_digests_that_differ():
    names = [p.name for p in load_all()]
    assert names[0] == "phantom-chest"
    assert names[-2:] == ["general", "general-photograph"]
    assert len({p.digest for p in load_all()}) == len(names) == 17
    assert all(len(p.digest) == 64 for p in load_all())


def test_a_changed_word_changes_the_digest_and_a_comment_does_not():
    assert load(MINIMAL).digest == load("# a remark\n" + MINIMAL).digest
    assert load(MINIMAL).digest != load(MINIMAL.replace("Describe", "Explain")).digest


def test_the_phantom_protocol_asks_exactly_what_the_model_was_trained_on():
    step = named("phantom-chest").steps[0]
    assert (step.system, step.user) == ({"en": ""}, {"en": QUESTION})


# Which protocol a study gets: modality, body part, study description, expected; then what else the header says.
HEADERS = [
    # chest radiographs, as people and devices write them
    ("DX", "CHEST", "Chest PA and lateral", "chest-radiograph", {"view_position": "PA"}),
    ("CR", "CHEST", "", "chest-radiograph", {"view_position": "AP"}),
    ("CR", "THORAX", "RX TORAX PORTATIL", "chest-radiograph", {}),
    ("DX", "", "Rx de tórax PA y lateral", "chest-radiograph", {}),
    ("DX", "", "Röntgen Thorax 2 Ebenen", "chest-radiograph", {}),
    ("DX", "", "Radio thoracique de face", "chest-radiograph", {}),
    ("DX", "", "Radiografia de tórax PA", "chest-radiograph", {}),
    ("DX", "", "胸部正侧位", "chest-radiograph", {}),
    ("DX", "胸部", "数字化摄影", "chest-radiograph", {}),
    ("RG", "", "CXR", "chest-radiograph", {"patient_age": "003M"}),
    ("DX", "HAND", "Tórax PA", "chest-radiograph", {}),  # the device kept the last body part
    ("DX", "CHEST", "Control tórax, revisado mano a mano con residente", "chest-radiograph", {}),
    ("DX", "CHEST", "HANDOVER ROUND", "chest-radiograph", {}),
    ("DX", "CHEST", "Chest phantom", "phantom-chest", {}),
    # bones
    ("DX", "HAND", "", "bone-radiograph", {}),
    ("DX", "", "Rx mano derecha AP y oblicua", "bone-radiograph", {}),
    ("DX", "CHEST", "Rx mano", "bone-radiograph", {}),
    ("DX", "CHEST", "Parrilla costal izquierda", "bone-radiograph", {}),
    ("CR", "", "Radio du poignet gauche", "bone-radiograph", {}),
    ("CR", "", "Rx main droite", "bone-radiograph", {}),
    ("CR", "", "Kniegelenk 2 Ebenen links", "bone-radiograph", {}),
    ("CR", "", "Hüfte a.p.", "bone-radiograph", {}),
    ("CR", "", "Fuß rechts", "bone-radiograph", {}),
    ("CR", "", "Radiografia do pé direito", "bone-radiograph", {}),
    ("DX", "", "左手正斜位", "bone-radiograph", {}),
    ("DX", "", "胸椎正侧位", "bone-radiograph", {}),
    ("DX", "CSPINE", "", "bone-radiograph", {"patient_age": "007Y"}),
    ("DX", "SKULL", "", "bone-radiograph", {}),
    ("DX", "", "XR Tib-Fib LT", "bone-radiograph", {}),
    ("DX", "", "HANDOVER", "general", {}),
    ("DX", "", "Legacy import", "general", {}),
    ("DX", "ABDOMEN", "Abdomen simple, comparado mano a mano", "general", {}),
    ("DX", "ABDOMEN", "KUB", "general", {}),
    # breasts
    ("MG", "BREAST", "Screening mammogram", "mammogram", {}),
    ("MG", "", "", "mammogram", {"view_position": "MLO", "image_laterality": "L"}),
    ("CR", "BREAST", "Mamografía bilateral", "mammogram", {}),
    ("DX", "", "乳腺钼靶", "mammogram", {}),
    ("MG", "BREAST", "Specimen radiograph", "general", {}),
    ("MG", "BREAST", "Stereotactic biopsy left", "general", {}),
    # CT of the chest
    ("CT", "CHEST", "", "ct-chest", {}),
    ("CT", "", "CT THORAX W CONTRAST", "ct-chest", {}),
    ("CT", "", "TC tórax sin contraste", "ct-chest", {}),
    ("CT", "", "胸部CT平扫", "ct-chest", {}),
    ("CT", "", "CTPA", "ct-chest", {}),
    ("CT", "", "TDM thoracique", "ct-chest", {}),
    ("CT", "", "HRCT", "ct-chest", {}),
    ("CT", "LUNG", "LOW DOSE SCREENING", "ct-chest", {}),
    ("CT", "", "CT-guided lung biopsies", "general", {}),
    ("CT", "CHEST", "PET-CT whole body", "general", {}),
    ("CT", "", "CT thoracic spine", "general", {}),
    ("CT", "", "CT HANDCAP", "general", {}),
    # CT of the abdomen, and of more
    ("CT", "ABDOMEN", "", "ct-abdomen", {}),
    ("CT", "", "CT abdomen/pelvis with lung bases", "ct-abdomen", {}),
    ("CT", "", "TC abdomino-pélvica", "ct-abdomen", {}),
    ("CT", "", "Abdomen^AbdRoutine (Adult)", "ct-abdomen", {}),
    ("CT", "", "UroTAC", "ct-abdomen", {}),
    ("CT", "", "CT Oberbauch nativ", "ct-abdomen", {}),
    ("CT", "", "上腹部CT增强", "ct-abdomen", {}),
    ("CT", "", "Early arterial phase liver", "ct-abdomen", {}),
    ("CT", "PELVIS", "CT hip fracture", "general", {}),
    ("CT", "", "CT CAP", "ct-body", {}),
    ("CT", "", "CT Chest Abdomen Pelvis with contrast", "ct-body", {}),
    ("CT", "", "Scanner TAP", "ct-body", {}),
    ("CT", "", "TC toracoabdominal", "ct-body", {}),
    ("CT", "", "胸腹部CT", "ct-body", {}),
    ("CT", "CHEST", "CT ABDOMEN PELVIS", "ct-body", {}),  # one of the two is wrong: what either would look at
    ("CT", "CAPITATE", "CT CAPITATE", "general", {}),
    # CT of the head
    ("CT", "HEAD", "", "ct-head", {}),
    ("CT", "BRAIN", "CT BRAIN W/O CONTRAST", "ct-head", {}),
    ("CT", "", "TC de cráneo", "ct-head", {}),
    ("CT", "", "cCT nativ", "ct-head", {}),
    ("CT", "", "Scanner cérébral", "ct-head", {}),
    ("CT", "", "TC crânio", "ct-head", {}),
    ("CT", "", "颅脑CT平扫", "ct-head", {}),
    ("CT", "", "CT angio head and neck", "general", {}),
    ("CT", "HEADNECK", "", "general", {}),
    ("CT", "HEAD", "CT paranasal sinuses", "general", {}),
    ("CT", "HEAD", "TC peñascos", "general", {}),
    ("CT", "FOOT", "电脑断层", "general", {}),
    # MR
    ("MR", "BRAIN", "", "mr-brain", {}),
    ("MR", "HEAD", "MRI brain w/wo contrast", "mr-brain", {}),
    ("MR", "", "RM cerebral con gadolinio", "mr-brain", {}),
    ("MR", "", "IRM encéphale", "mr-brain", {}),
    ("MR", "", "MRT Schädel", "mr-brain", {}),
    ("MR", "", "颅脑MR平扫", "mr-brain", {}),
    ("MR", "HEAD", "MR pituitary", "general", {}),
    ("MR", "KNEE", "MR knee", "general", {}),
    # ultrasound
    ("US", "CHEST", "Chest wall ultrasound", "ultrasound", {}),
    ("US", "", "Ecografía abdominal", "ultrasound", {}),
    ("US", "", "", "ultrasound", {"patient_age": "002D"}),
    ("US", "BREAST", "乳腺超声", "ultrasound", {}),
    # photographs
    ("OP", "EYE", "", "fundus", {"sop_class_uid": FUNDUS}),
    ("OP", "", "Retinografía OD", "fundus", {"sop_class_uid": FUNDUS}),
    ("XC", "", "眼底照相", "fundus", {"sop_class_uid": PHOTO}),
    ("OPT", "EYE", "OCT macula", None, {"sop_class_uid": CLASS + "77.1.5.4"}),
    ("OP", "EYE", "OCT report", None, {"sop_class_uid": CLASS + "7"}),
    ("OP", "EYE", "Slit lamp", "general-photograph", {"sop_class_uid": FUNDUS}),
    ("DMS", "SKIN", "", "dermatology", {"sop_class_uid": DERMOSCOPY}),
    ("XC", "", "", "dermatology", {"sop_class_uid": DERMOSCOPY}),
    ("XC", "SKIN", "", "dermatology", {"sop_class_uid": PHOTO}),
    ("XC", "", "Muttermal am Rücken", "dermatology", {"sop_class_uid": PHOTO}),
    ("XC", "", "皮疹", "dermatology", {"sop_class_uid": PHOTO}),
    ("XC", "SKIN", "Pressure ulcer sacrum", "wound", {"sop_class_uid": PHOTO}),
    ("XC", "", "Úlcera por presión talón", "wound", {"sop_class_uid": PHOTO}),
    ("XC", "", "Plaie du pied diabétique", "wound", {"sop_class_uid": PHOTO}),
    ("XC", "", "压疮", "wound", {"sop_class_uid": PHOTO}),
    ("XC", "", "Earlobe laceration", "wound", {"sop_class_uid": PHOTO}),
    ("XC", "", "Earlobe", "general-photograph", {"sop_class_uid": PHOTO}),
    ("XC", "", "", "general-photograph", {"sop_class_uid": PHOTO}),
    ("XC", "", "Una foto", "general-photograph", {"sop_class_uid": PHOTO}),
    ("XC", "", "Consentimiento informado, documento", None, {"sop_class_uid": PHOTO}),
    ("ES", "", "Capsule endoscopy", "endoscopy", {"sop_class_uid": ENDOSCOPY}),
    ("ES", "", "胃镜", "endoscopy", {"sop_class_uid": ENDOSCOPY + ".1"}),
    ("XC", "", "Gastroskopie", "endoscopy", {"sop_class_uid": PHOTO}),
    ("SM", "LUNG", "Lung biopsy HE", "pathology", {"sop_class_uid": SM}),
    ("GM", "", "Blutausstrich", "pathology", {"sop_class_uid": CLASS + "77.1.2"}),
    ("SM", "", "", "pathology", {"sop_class_uid": SM, "series_description": "20x"}),
    ("SM", "", "", None, {"sop_class_uid": SM, "series_description": "LABEL"}),
    # what is left
    ("NM", "", "Captopril renogram", "general", {}),
    ("PT", "", "PET FDG", "general", {}),
    ("IO", "JAW", "", "general", {}),
    ("OT", "", "Wound care form", None, {}),
    ("CT", "", "", "general", {}),
    ("CT", "CHEST", "", None, {"sop_class_uid": SR}),
    ("CT", "CHEST", "", None, {"has_pixels": False}),
]


@pytest.mark.parametrize(
    ("modality", "body_part", "description", "expected", "rest"),
    HEADERS,
    ids=[f"{m} {b} {d}".strip() + "".join(f" {v}" for v in r.values()) for m, b, d, _, r in HEADERS],
)
def test_a_study_gets_the_protocol_that_is_for_it(modality, body_part, description, expected, rest):
    made = {"modality": modality, "body_part_examined": body_part, "study_description": description} | rest
    assert found_for(instance(**made)) == expected


@pytest.mark.parametrize("place", ["series_description", "protocol_name", "requested_procedure_description"])
def test_a_word_counts_wherever_it_is_written(place):
    assert found_for(instance(**{place: "TC DE TORAX"})) == "ct-chest"
    assert found_for(instance(**{place: "TC DE TORAX", "study_description": "Biopsia"})) == "general"


def test_of_a_study_with_several_kinds_of_images_the_first_protocol_that_fits_one_is_taken():
    hand, chest = (
        instance(modality="DX", body_part_examined="HAND"),
        instance(modality="DX", body_part_examined="CHEST"),
    )
    assert found_for(hand, chest) == found_for(chest, hand) == "chest-radiograph"
    assert found_for(hand, instance(sop_class_uid=SR, modality="SR", body_part_examined="CHEST")) == "bone-radiograph"


def test_the_order_of_protocols_does_not_matter():
    assert match(tuple(reversed(load_all())), [phantom()]).name == "phantom-chest"


def test_no_protocol_is_an_abstention():
    with pytest.raises(Abstained) as told:
        match_or_abstain(load_all(), [instance(modality="OPT")])
    assert told.value.reason_code == "no_protocol"


def test_a_sites_own_protocol_takes_the_place_of_the_shipped_one_and_hidden_ones_are_gone():
    own = load(
        MINIMAL.replace("name: small", "name: ct-chest").replace(
            "modalities: [CT]", "modalities: [ct], anatomy: [thora]"
        )
    )
    found = with_own(load_all(), [own], hidden=["general"])
    thorax = instance(study_description="CT Thorax")
    assert match(found, [thorax]) is own
    assert match(found, [instance(body_part_examined="KNEE")]) is None


# The first role that fits, as a series is described.
SEQUENCES = [
    ("ep2d_diff_3scan_trace_p2_TRACEW", "dwi"),
    ("ep2d_diff_3scan_trace_p2_ADC", "adc"),
    ("Ax DWI b1000", "dwi"),
    ("AX DWI b0-b1000", "dwi"),
    ("Apparent Diffusion Coefficient (mm2/s)", "adc"),
    ("dADC MAP", "adc"),
    ("DWI_3b_SENSE", "dwi"),
    ("difusión axial", "dwi"),
    ("弥散加权", "dwi"),
    ("Exponential Apparent Diffusion Coefficient", None),
    ("Ax T2 FLAIR", "flair"),
    ("t2_tirm_tra_dark-fluid_4mm", "flair"),
    ("t2_space_dark-fluid_sag_p2_iso", "flair"),
    ("3D_Brain_VIEW_FLAIR", "flair"),
    ("FLAIR +C", "flair"),
    ("Ax T1 FLAIR", "t1"),
    ("Ax T1 +C", "t1_contrast"),
    ("t1_mprage_tra_KM", "t1_contrast"),
    ("sT1W_3D_TFE_GD", "t1_contrast"),
    ("AX T1 POST", "t1_contrast"),
    ("T1 con contraste", "t1_contrast"),
    ("T1增强", "t1_contrast"),
    ("T1 posterior fossa", "t1"),
    ("T1 sin contraste", "t1"),
    ("T1 without contrast", "t1"),
    ("t1_mprage_sag_p2_iso", "t1"),
    ("sT1W_3D_TFE", "t1"),
    ("SAG FSPGR 3D", "t1"),
    ("T2W_TSE", "t2"),
    ("t2_tse_tra_448", "t2"),
    ("AX FSE T2", "t2"),
    ("T2 POST", "t2"),
    ("Ax T2* GRE", "swi"),
    ("t2_fl2d_tra_hemo", "swi"),
    ("T2W_FFE", "swi"),
    ("Ax SWAN", "swi"),
    ("SWI_Images", "swi"),
    ("VEN_BOLD", "swi"),
    ("SWI phase", None),
    ("Localizer", None),
    ("TOF_3D_multi-slab", None),
    ("ep2d_perf", None),
]


@pytest.mark.parametrize(("series", "expected"), SEQUENCES)
def test_a_series_of_the_brain_plays_its_role(series, expected):
    header = instance(modality="MR", series_description=series).header
    roles = named("mr-brain").pictures.roles
    assert next((role.name for role in roles if role.accepts(header)), None) == expected


@pytest.mark.parametrize(
    ("protocol", "header", "plane", "expected"),
    [
        ("chest-radiograph", {"modality": "DX", "view_position": "AP"}, "", "frontal"),
        ("chest-radiograph", {"modality": "CR", "series_description": "Tórax perfil"}, "", "lateral"),
        ("chest-radiograph", {"modality": "CR", "series_description": "Thorax"}, "", None),
        ("mammogram", {"modality": "MG", "view_position": "CC", "image_laterality": "R"}, "", "r_cc"),
        ("mammogram", {"modality": "MG", "series_description": "LMLO"}, "", "l_mlo"),
        ("mammogram", {"modality": "MG", "view_position": "ML", "image_laterality": "L"}, "", None),
        ("ct-head", {"series_description": "Head 5.0 H31s"}, "axial", "axial"),
        ("ct-head", {"series_description": "BONE 1.0 H60"}, "axial", "bone"),
        ("ct-head", {"series_description": "Knochen axial"}, "axial", "bone"),
        ("ct-head", {"series_description": "Cor"}, "coronal", "coronal"),
        ("ct-chest", {"series_description": "LUNG 1.0"}, "axial", "axial"),
        ("ct-abdomen", {"series_description": "MPR"}, "oblique", None),
        ("fundus", {"modality": "OP", "image_laterality": "R"}, "", "right_eye"),
        ("fundus", {"modality": "OP", "laterality": "L"}, "", "left_eye"),
        ("wound", {"modality": "XC", "series_description": "Close-up"}, "", "closeup"),
        ("dermatology", {"modality": "XC", "series_description": "皮肤镜"}, "", "dermoscopy"),
    ],
)
def test_an_instance_plays_its_role(protocol, header, plane, expected):
    roles = named(protocol).pictures.roles
    assert next((r.name for r in roles if r.accepts(instance(**header).header, plane)), None) == expected


SHIPPED = [p for p in load_all() if p.name != "phantom-chest"]


@pytest.fixture(params=SHIPPED, ids=lambda p: p.name)
def shipped(request):
    return request.param


def texts(protocol, language):
    own = [getattr(step, kind).get(language, "") for step in protocol.steps for kind in ("system", "user", "question")]
    return [protocol.look_for[language], *own]


def test_every_shipped_protocol_speaks_three_languages(shipped):
    assert shipped.languages == LANGUAGES
    assert all(shipped.look_for[language].strip() for language in LANGUAGES)
    for step in shipped.steps:
        assert step.kind != "ask" or all(step.question[n] and step.about[n] for n in LANGUAGES)


def test_the_texts_are_in_the_language_they_say(shipped):
    chinese = re.compile(r"[\u4e00-\u9fff]")
    for step in shipped.steps:
        for words in (step.question, {n: " ".join(step.about.get(n, ())) for n in step.about}, shipped.look_for):
            assert all(bool(chinese.search(text)) == (language == "zh") for language, text in words.items())
        assert not step.question or (step.question["en"].endswith("?") and step.question["es"].startswith("¿"))


def test_what_is_asked_about_is_found_in_the_words_of_the_question(shipped):
    for step in shipped.steps:
        for language, question in step.question.items():
            assert says(question, step.about[language]), (step.name, language)


def test_a_shipped_prompt_is_short_and_names_no_product(shipped):
    names = re.compile(
        r"\b(siemens|philips|canon|huatuo\w*|gpt|google|bi-?rads|omnipaque|gadovist|paracetamol)\b", re.IGNORECASE
    )
    for language in LANGUAGES:
        assert not any(names.search(text) for text in texts(shipped, language))
        wording = wording_of(language)
        for step in shipped.steps:
            template = step.user.get(language) or getattr(wording.templates, step.kind)
            fields = {name for _, name, _, _ in Formatter().parse(template) if name}
            values = dict.fromkeys(fields, "") | {"look_for": shipped.look_for[language]}
            values["question"] = step.question.get(language, "")
            composed = (step.system.get(language) or wording.system) + template.format(**values)
            assert len(composed) < 2000, (step.name, language, len(composed))


def test_a_shipped_protocol_keeps_within_what_the_smallest_model_takes(shipped):
    assert shipped.pictures.max <= 5
    assert sum(step.kind == "ask" for step in shipped.steps) <= 6
    kinds = [step.kind for step in shipped.steps]
    assert kinds == sorted(kinds, key=["report", "describe", "impression", "ask"].index)
    assert shipped.parameters.temperature == 0.0
    assert ("asked" in shipped.checks) == ("ask" in kinds)
    assert "language" in shipped.checks
    assert ("impression" in shipped.sections) == bool({"report", "impression"} & {*kinds})


def test_a_shipped_protocol_names_none_of_its_own_words_among_those_it_shuns(shipped):
    either = (shipped.match, *shipped.match.any_of)
    wanted = [word for one in either for word in (*one.anatomy, *one.words)]
    shunned = tuple(word for word in shipped.match.not_words)
    assert not [word for word in wanted if says(word.removesuffix("$"), shunned)]


def test_the_phantom_model_is_not_asked_about_patients(shipped):
    assert bind(named("phantom-chest"), "phantom") == "phantom"
    assert bind(shipped, "/models/huatuo") == "/models/huatuo"
    for alias in ("phantom", str(MODEL_DIR)):
        with pytest.raises(Abstained) as told:
            bind(shipped, alias)
        assert (told.value.reason_code, told.value.message) == (
            "unsupported",
            "The phantom model reads only chest phantoms.",
        )


def test_an_allow_list_and_a_model_of_its_own_bind():
    only = load(MINIMAL + "gate: {models: [a]}\n")
    assert bind(only, "a") == "a"
    with pytest.raises(Abstained):
        bind(only, "b")
    assert bind(load(MINIMAL + "model: c\n"), "b") == "c"


def test_the_gate_lets_pass_by_age():
    adults = load(MINIMAL + "gate: {min_age_y: 18, max_age_y: 90}\n")
    admit(load(MINIMAL), "")
    admit(adults, "018Y")
    for age in ("017Y", "091Y", "011M", "", "old"):
        with pytest.raises(Abstained) as told:
            admit(adults, age)
        assert told.value.reason_code == "unsupported"


@pytest.mark.parametrize(
    ("age", "born", "taken", "expected"),
    [
        ("045Y", "19990101", "20260101", "045Y"),
        ("", "19800615", "20260614", "045Y"),
        ("", "20250301", "20260614", "015M"),
        ("", "20270101", "20260101", ""),
        ("", "1980", "20260101", ""),
        ("45", "", "", ""),
    ],
)
def test_an_age_is_what_is_stated_or_what_the_dates_give(age, born, taken, expected):
    header = instance(patient_age=age, patient_birth_date=born, study_date=taken).header
    assert patient_age(header) == expected


FAULTY = [
    # what stands in the place of what, and the place and the fault that are named
    ("Describe the picture.", "'Describe {patient_name}.'", "steps.0.user", "these placeholders"),
    ("Describe the picture.", "'Describe {age.__class__}.'", "steps.0.user", "these placeholders"),
    ("Describe the picture.", "'Describe {age!r}.'", "steps.0.user", "these placeholders"),
    ("Describe the picture.", "'Describe {age:>9}.'", "steps.0.user", "these placeholders"),
    ("Describe the picture.", "'Describe {age'", "steps.0.user", "expected '}'"),
    ("user: Describe the picture.", "user: {fr: Décrire}", "steps.0.user.fr", "'en', 'es' or 'zh'"),
    ("user: Describe the picture.", "kind: ask", "steps.0", "has a question"),
    ("user: Describe the picture.", "question: Is it so", "steps.0", "no other has one"),
    ("user: Describe the picture.", "about: [mass]", "steps.0", "is about something"),
    ("user: Describe the picture.", "kind: ask, question: Is it so", "the whole", "report or describe"),
    ("user: Describe the picture.", "kind: poem", "steps.0.kind", "'report'"),
    (
        "sections: [findings]",
        "sections: [findings]\ncontext: []\nlook_for: {es: Mira, zh: 看}",
        "the whole",
        "no language",
    ),
    ("sections: [findings]", "sections: [poetry]", "sections.0", "'findings'"),
    ("sections: [findings]", "sections: []", "sections", "at least 1"),
    ("version: 1", "version: 0", "version", "greater than or equal to 1"),
    ("version: 1", "version: [1", "line", "not YAML"),
    ("version: 1", "version: 1\nversion: 2", "line 4", "stands twice"),
    ("version: 1", "version: &a 1\npriority: *a", "not YAML", ""),
    ("version: 1", "[version]: 1", "line 3", "a key is a word"),
    ("name: small", "name: Small one", "name", "pattern"),
    ("name: small\n", "", "name", "required"),
    ("title: Small", "title: Small\nevil: true", "evil", "there is no such key"),
    ("title: Small", "title: Small\nmodels: [a]", "models", "there is no such key"),
    ("title: Small", "title: Small\nchecks: [magic]", "the whole", "no such checks: magic"),
    ("title: Small", "title: Small\ngate: {abstain_on: [magic]}", "the whole", "no such checks: magic"),
    (
        "title: Small",
        "title: Small\ngate: {required_roles: [lateral]}",
        "the whole",
        "no role of pictures.roles: lateral",
    ),
    ("title: Small", "title: Small\ngate: {max_blank_fraction: 1}", "gate.max_blank_fraction", "less than 1"),
    ("title: Small", "title: Small\npriority: 1000", "priority", "less than or equal to 100"),
    ("title: Small", "title: Small\ncontext: [name]", "context.0", "'age'"),
    ("title: Small", "title: Small\ncontext: [age]\nsteps: []", "line", "steps stands twice"),
    ("title: Small", "title: Small\npictures: {max: 1, windows: {CT: [lung, bone]}}", "pictures", "too small"),
    ("title: Small", "title: Small\npictures: {windows: {CT: [x_ray]}}", "pictures", "no such windows: x_ray"),
    ("title: Small", "title: Small\npictures: {max: 0}", "pictures.max", "greater than or equal to 1"),
    ("title: Small", "title: Small\npictures: {roles: [{name: a}, {name: a}]}", "pictures", "the same name"),
    (
        "title: Small",
        "title: Small\npictures: {roles: [{name: a, planes: [round]}]}",
        "pictures.roles.0.planes.0",
        "'axial'",
    ),
    (
        "title: Small",
        "title: Small\npictures: {montage: {rows: 9}}",
        "pictures.montage.rows",
        "less than or equal to 8",
    ),
    ("title: Small", "title: Small\nparameters: {temperature: 3}", "parameters.temperature", "less than or equal to 2"),
    ("modalities: [CT]", "words: ['']", "match.words.0", "pattern"),
    ("modalities: [CT]", "words: [mano$ der]", "match.words.0", "pattern"),
    ("modalities: [CT]", "any_of: [{word: [a]}]", "match.any_of.0.word", "there is no such key"),
    ("modalities: [CT]", "modalities: CT", "match.modalities", "tuple"),
    ("modalities: [CT]", "modalities: [no]", "match.modalities.0", "string"),
]


@pytest.mark.parametrize(("part", "other", "place", "fault"), FAULTY, ids=[other[-60:] for _, other, _, _ in FAULTY])
def test_what_is_no_protocol_is_refused_with_its_place(part, other, place, fault):
    assert part in MINIMAL
    text = MINIMAL.replace(part, other)
    with pytest.raises(Misconfigured) as told:
        load(text, origin="mine.yaml")
    assert str(told.value).startswith("mine.yaml is not ")
    assert place in str(told.value)
    assert fault in str(told.value)


@pytest.mark.parametrize("text", ["", "- 1", "only words", "a: 2024-13-45", "\0", "x: " + "[" * 3000, "x" * 100_001])
def test_what_is_not_even_a_list_of_keys_is_refused(text):
    with pytest.raises(Misconfigured, match="mine"):
        load(text, origin="mine")


def test_a_text_that_uses_what_the_context_does_not_list_is_refused():
    asks = MINIMAL.replace("Describe the picture.", "'{labs}'")
    with pytest.raises(Misconfigured, match="what context does not list: labs"):
        load(asks)
    assert load(asks + "context: [labs]\n").context == ("labs",)


@pytest.mark.parametrize(
    ("text", "word", "expected"),
    [
        ("RX MANO DER", "mano$", True),
        ("HANDOVER", "hand$", False),
        ("HANDOVER", "hand", True),
        ("left-hand", "hand$", True),
        ("RHAND", "hand", False),
        ("ep2d_diff_ADC", "adc$", True),
        ("TC TORAX", "tórax", True),
        ("TC Tórax", "torax", True),
        ("Fuß links", "fuss$", True),
        ("SCHÄDEL", "schadel", True),
        ("t2_tirm_dark-fluid", "dark fluid", True),
        ("X RAY", "x-ray", True),
        ("Ax T2* GRE", "t2*", True),
        ("Ax T2 GRE", "t2*", False),
        ("T1+C", "+c", True),
        ("双手正位", "双手", True),
        ("ＣＴ", "ct$", True),  # as Japanese and Chinese devices write it
        ("", "a", False),
    ],
)
def test_a_word_is_found_as_devices_write_it(text, word, expected):
    assert says(text, (word,)) is expected


def test_age_and_sex_bounds_need_a_value_that_meets_them():
    adults = Match(min_age_y=18, sexes=("F",))
    assert adults.accepts(instance(patient_age="045Y", patient_sex="F").header)
    assert not adults.accepts(instance(patient_age="011M", patient_sex="F").header)
    assert not adults.accepts(instance(patient_sex="F").header)
    assert adults.specificity == 2
    assert protocols.age_y("018M") == 1.5


def test_small_letters_are_as_good_as_capitals():
    small = Match(modalities=("ct",), views=("pa",), sexes=("f",), body_parts=("chest",))
    header = instance(view_position="PA", patient_sex="F", body_part_examined="CHEST").header
    assert small.accepts(header)
    assert not small.accepts(replace(header, modality="MR"))


def test_one_of_several_conditions_is_enough_and_the_others_still_hold():
    either = Match(sites=("a",), any_of=(Match(modalities=("MR",)), Match(modalities=("CT",), words=("knee",))))
    knee = instance(study_description="CT knee").header
    assert either.accepts(knee, "a")
    assert not either.accepts(knee, "b")
    assert not either.accepts(instance().header, "a")
    assert either.accepts(instance(modality="MR").header, "a")


PAGE = (Path(__file__).parents[2] / "docs" / "protocols.md").read_text(encoding="utf-8")
DESCRIBED = {
    "The protocol": schema.Protocol,
    "`match`": schema.Match,
    "`pictures`": pictures.Pictures,
    "`pictures.roles`": pictures.Role,
    "`pictures.montage`": pictures.Montage,
    "`pictures.tiles`": pictures.Tiles,
    "`steps`": schema.Step,
    "`parameters`": schema.Generation,
    "`gate`": schema.Gate,
}


def stated_defaults(heading):
    part = PAGE.split(f"\n### {heading}\n")[1].split("\n### ")[0]
    for names, default in re.findall(r"^\| (`.+?) \| (.+?) \|", part, re.MULTILINE):
        for name in re.findall(r"`(\w+)`", names):
            yield name, default.strip("`")


@pytest.mark.parametrize("heading", DESCRIBED)
def test_the_page_on_protocols_names_every_key_with_its_default(heading):
    model = DESCRIBED[heading]
    expected = {
        name: "required"
        if field.is_required()
        else TypeAdapter(Any).dump_python(field.get_default(call_default_factory=True), mode="json")
        for name, field in model.model_fields.items()
    }
    whole = {
        "pictures": pictures.Pictures,
        "parameters": schema.Generation,
        "gate": schema.Gate,
        "tiles": pictures.Tiles,
    }
    stated = {
        name: whole[name]().model_dump(mode="json") if name in whole and default == "{}" else yaml.safe_load(default)
        for name, default in stated_defaults(heading)
    }
    assert stated == expected


def test_the_page_on_protocols_lists_the_shipped_ones_and_every_check():
    listed = re.findall(r"^\| (`.+?`) \| (-?\d+) \|", PAGE.split("## Your own")[0], re.MULTILINE)
    told = [(name, int(priority)) for names, priority in listed for name in re.findall(r"`([\w-]+)`", names)]
    assert sorted(told) == sorted((p.name, p.priority) for p in load_all())
    assert {*re.findall(r"`(\w+)`", PAGE.split("### `checks`")[1])} == protocols.CHECKS


def test_the_example_on_the_page_is_a_protocol_that_takes_what_it_says():
    (example,) = re.findall(r"```yaml\n(.+?)```", PAGE, re.DOTALL)
    own = load(example)
    assert own.languages == ("en", "es")
    knee = instance(modality="DX", body_part_examined="KNEE", study_description="Control prótesis")
    assert match([*load_all(), own], [knee]) is own
    assert match([*load_all(), own], [instance(modality="DX", body_part_examined="KNEE")]).name == "bone-radiograph"
