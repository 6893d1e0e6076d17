"""Reading protocols: their form, which fits a study, and which model may be asked."""

import pytest

from record.errors import Abstained, Misconfigured
from record.instances import InstanceHeader, StoredInstance
from worker import protocols
from worker.phantom import MODEL_DIR, QUESTION
from worker.protocols import Match, bind, load, load_all, match, match_or_abstain

CT, DX, SM, SR = (f"1.2.840.10008.5.1.4.1.1.{n}" for n in ("2", "1.1", "77.1.6", "88.22"))
MINIMAL = """
name: small
version: 1
title: Small
match: {modalities: [CT]}
steps: [{name: draft, user: Describe the picture.}]
sections: [findings]
"""


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


def test_shipped_protocols_load_with_digests_that_differ():
    assert [p.name for p in load_all()] == ["phantom-chest", "general"]
    assert len({p.digest for p in load_all()}) == 2
    assert all(len(p.digest) == 64 for p in load_all())


def test_a_changed_word_changes_the_digest_and_a_comment_does_not():
    assert load(MINIMAL).digest == load("# a remark\n" + MINIMAL).digest
    assert load(MINIMAL).digest != load(MINIMAL.replace("Describe", "Explain")).digest


def test_the_phantom_protocol_asks_exactly_what_the_model_was_trained_on():
    step = named("phantom-chest").steps[0]
    assert (step.system, step.user) == ("", QUESTION)


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        (phantom(), "phantom-chest"),
        (phantom(modality="CR"), "phantom-chest"),
        (phantom(study_description="Chest PA"), "general"),
        (phantom(body_part_examined="HAND"), "general"),
        (instance(study_description="PHANTOM"), "general"),
        (instance(), "general"),
        (instance(modality="SM", sop_class_uid=SM), None),
        (instance(modality="OT"), None),
        (instance(has_pixels=False), None),
        (instance(modality="CT", sop_class_uid=SR), None),
    ],
)
def test_the_most_specific_protocol_that_fits_is_taken(made, expected):
    found = match(load_all(), [made])
    assert (found.name if found else None) == expected


def test_the_order_of_protocols_does_not_matter():
    assert match(tuple(reversed(load_all())), [phantom()]).name == "phantom-chest"


def test_no_protocol_is_an_abstention():
    with pytest.raises(Abstained) as told:
        match_or_abstain(load_all(), [instance(modality="SM")])
    assert told.value.reason_code == "no_protocol"


def test_the_phantom_model_is_not_asked_about_patients():
    assert bind(named("phantom-chest"), "phantom") == "phantom"
    assert bind(named("general"), "/models/huatuo") == "/models/huatuo"
    for alias in ("phantom", str(MODEL_DIR)):
        with pytest.raises(Abstained) as told:
            bind(named("general"), alias)
        assert (told.value.reason_code, told.value.message) == (
            "unsupported",
            "The phantom model reads only chest phantoms.",
        )


def test_an_allow_list_and_a_model_of_its_own_bind():
    only = load(MINIMAL + "models: [a]\n")
    assert bind(only, "a") == "a"
    with pytest.raises(Abstained):
        bind(only, "b")
    assert bind(load(MINIMAL + "model: c\n"), "b") == "c"


@pytest.mark.parametrize(
    ("part", "other"),
    [
        ("Describe the picture.", "Describe {patient_name}."),
        ("Describe the picture.", "'Describe {age.__class__}.'"),
        ("Describe the picture.", "'Describe {age!r}.'"),
        ("sections: [findings]", "sections: [poetry]"),
        ("version: 1", "version: 0"),
        ("title: Small", "title: Small\nevil: true"),
        ("title: Small", "title: Small\nchecks: [magic]"),
        ("title: Small", "title: Small\npictures: {max: 1, windows: {CT: [lung, bone]}}"),
        ("version: 1", "version: [1"),
    ],
)
def test_what_is_no_protocol_is_refused_with_its_place(part, other):
    with pytest.raises(Misconfigured):
        load(MINIMAL.replace(part, other))


def test_age_and_sex_bounds_need_a_value_that_meets_them():
    adults = Match(min_age_y=18, sexes=("F",))
    assert adults.accepts(instance(patient_age="045Y", patient_sex="F").header)
    assert not adults.accepts(instance(patient_age="011M", patient_sex="F").header)
    assert not adults.accepts(instance(patient_sex="F").header)
    assert adults.specificity == 2
    assert protocols.age_y("018M") == 1.5
