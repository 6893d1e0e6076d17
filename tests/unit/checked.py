"""What the guardrails say of a text: read, checked, and its flags by name and sentence."""

from worker import protocols
from worker.checks import check
from worker.engines import Completion
from worker.findings import parse
from worker.prompting import ReadingContext

GENERAL = next(p for p in protocols.load_all() if p.name == "general")
PHANTOM = next(p for p in protocols.load_all() if p.name == "phantom-chest")
CONTEXT = ReadingContext(patient_age="061Y", patient_sex="F", modality="CR", body_part="CHEST")


def completion(finish="stop"):
    return Completion("", finish, (), (), 0, 0.0, 0.0, "", {})


def flags(text, *, context=CONTEXT, protocol=GENERAL, finish="stop", pictures=(), language=None):
    findings = parse(text, protocol, [], language=language)
    checked, found = check(findings, protocol, context, [completion(finish)], pictures=pictures)
    assert [s.text for _, s in checked.sentences()] == [s.text for _, s in findings.sentences()]
    return {(f.name, f.sentence) for f in found}
