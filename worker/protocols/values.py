"""The kinds of values that a protocol is made of.

Knows texts by language, words as they are looked for, codes and names. Does not know what they are for.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from worker.protocols.wording import Language


class Strict(BaseModel):
    """Nothing but what is known, and never changed."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


def _by_language(given: Any) -> Any:
    """Plain text is English."""
    return {"en": given} if isinstance(given, str | list) else given


def _upper(given: Any) -> Any:
    """Headers are compared in capitals, so `[ct]` is no condition that nothing meets."""
    return given.upper() if isinstance(given, str) else given


Words = Annotated[dict[Language, str], BeforeValidator(_by_language)]
"""One text a language; plain text is English."""
Word = Annotated[str, Field(pattern=r"^[^$]*[^\s$]\s*\$?$")]
"""How a word begins, or with `$` at its end the whole word. A blank one would stand everywhere."""
Terms = Annotated[dict[Language, tuple[Word, ...]], BeforeValidator(_by_language)]
Code = Annotated[str, BeforeValidator(_upper), Field(min_length=1)]
Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]{0,63}$")]
