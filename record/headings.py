"""The words that begin a section, in every language we read: one table for what people type and what models answer.

Knows headings. Does not know where in a text one may stand: `written` and the worker's `findings` each have a rule of
their own.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping

from record.body import SectionCode

HEADINGS: Mapping[SectionCode, tuple[str, ...]] = {
    SectionCode.EXAM: (
        *("examination", "exam", "study"),
        *("examen", "estudio", "exploración", "tipo de estudio"),
        *("检查项目", "检查名称", "检查部位", "检查"),
    ),
    SectionCode.CLINICAL_INFORMATION: (
        *("clinical information", "clinical history", "indication", "indications", "history"),
        *("información clínica", "datos clínicos", "historia clínica", "antecedentes", "indicación", "motivo"),
        *("临床信息", "临床资料", "临床病史", "病史"),
    ),
    SectionCode.TECHNIQUE: (
        "technique",
        "técnica",
        *("检查技术", "检查方法", "扫描技术", "技术"),
    ),
    SectionCode.COMPARISON: (
        *("comparison", "comparisons"),
        *("comparación", "estudio comparativo", "estudios previos"),
        *("比较", "对比", "对照"),
    ),
    SectionCode.FINDINGS: (
        *("findings", "finding"),
        *("hallazgos", "hallazgo"),
        *("影像所见", "检查所见", "所见", "影像表现"),
    ),
    SectionCode.IMPRESSION: (
        *("impression", "impressions", "conclusion", "conclusions", "summary", "opinion", "assessment"),
        *("impresión", "impresión diagnóstica", "conclusión", "conclusiones", "opinión"),
        *("diagnóstico", "juicio diagnóstico"),
        *("诊断意见", "诊断印象", "影像诊断", "诊断", "印象", "结论"),
    ),
    SectionCode.RECOMMENDATIONS: (
        *("recommendations", "recommendation"),
        *("recomendaciones", "recomendación"),
        "建议",
    ),
}
"""What may be written over each section; the case and the accents do not matter."""
_LINE = re.compile(r"([^:：]*)[:：](.*)", re.DOTALL)


def folded(text: str) -> str:
    """A heading whatever its case, accents and spaces."""
    plain = unicodedata.normalize("NFKD", text).casefold()
    return " ".join("".join(c for c in plain if unicodedata.category(c) != "Mn").split())


CODES: Mapping[str, SectionCode] = {folded(word): code for code, words in HEADINGS.items() for word in words}
"""The section of each heading, folded."""


def heading_of(line: str) -> tuple[SectionCode, str] | None:
    """The section a line begins, and what stands behind the heading; a heading has a colon, or its line to itself."""
    found = _LINE.fullmatch(line)
    name, rest = found.groups() if found else (line, "")
    code = CODES.get(folded(name)) if len(name) < 100 else None
    return (code, rest.strip()) if code else None
