"""Where a draft came from, as plain values: what is stored with its pictures, its steps and itself.

Knows what must be told (model, software, protocol, each picture with its instance, frame, window, transform and digests, what was left
out and why, what the model was told and asked). Does not know how any of it was made.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import platform
from dataclasses import asdict, replace
from typing import Any

from record.orientation import turned
from record.pipes import Rendered
from worker.cases import Case
from worker.conversation import Said
from worker.engines import Completion, Engine
from worker.prompting import ReadingContext
from worker.protocols import Protocol
from worker.selection import Chosen
from worker.windows import WINDOWS


def rendering_of(chosen: Chosen, picture: Rendered) -> dict[str, Any]:
    """Say how a picture came about, as plain values."""
    told: dict[str, Any] = {
        "transform": dict(picture.transform),
        "pixel_digest": picture.pixel_digest,
        "window": chosen.window,
        "blank": picture.blank,
        "edges": list(edges_of(chosen, picture)),
        "bytes": len(picture.png),
    }
    if chosen.more:
        told["more"] = [[other.header.sop_instance_uid, frame] for other, frame in chosen.more]
    if chosen.region:
        told["region"] = asdict(chosen.region)
    if chosen.state:
        told["state"] = chosen.state.header.sop_instance_uid
    return told


def as_shown(chosen: Chosen, picture: Rendered) -> Chosen:
    """Return what was chosen as it was really shown: where a window did not fit the values, by what took its place."""
    voi = picture.transform.get("voi")
    asked = voi.get("instead_of") if isinstance(voi, dict) else None
    if not asked or chosen.window is None:
        return chosen
    shown = str(voi["source"]).removeprefix("named:") if isinstance(voi, dict) else ""
    window = shown if shown in WINDOWS else None
    caption = chosen.caption.removesuffix(f", {WINDOWS[chosen.window].words}")
    caption = f"{caption}, {WINDOWS[window].words}" if window else caption
    return replace(chosen, window=window, caption=caption)


def top_of_counts(picture: Rendered) -> float | None:
    """Return the count that is shown black, where counts are shown."""
    voi = picture.transform.get("voi")
    return float(voi["high"]) if isinstance(voi, dict) and voi["source"] == "named:counts" and "high" in voi else None


def edges_of(chosen: Chosen, picture: Rendered) -> tuple[str, ...]:
    """Say where the edges of the picture face, a presentation state's turns included."""
    spatial = picture.transform.get("spatial")
    return turned(chosen.edges, spatial["rotation"], flipped=spatial["flip"]) if spatial else chosen.edges


def step_of(name: str, completion: Completion) -> dict[str, Any]:
    """Say how one answer came about: a row of the draft's steps."""
    return {
        "prompt": completion.rendered_prompt,
        "prompt_sha256": _sha(completion.rendered_prompt),
        "completion": completion.text,
        "completion_sha256": _sha(completion.text),
        "parameters": {"step": name, **dict(completion.parameters)},
        "finish": completion.finish,
        "tokens": {
            "ids": list(completion.token_ids),
            "logprobs": [round(v, 4) for v in completion.token_logprobs],
            "prompt": completion.prompt_tokens,
            **({"choices": dict(completion.choices), "mass": completion.choice_mass} if completion.choices else {}),
        },
        "timing": {
            "first_token_s": round(completion.first_token_s, 4),
            "total_s": round(completion.total_s, 4),
            "batch_size": completion.batch_size,
            "batch_position": completion.batch_position,
        },
    }


def provenance_of(
    case: Case, protocol: Protocol, engine: Engine, context: ReadingContext, said: Said
) -> dict[str, Any]:
    """Say where the words came from: model, software, protocol, what was shown, what was left out, what was told and asked."""
    headers = {i.instance_id: i for i in case.instances}
    return {
        "engine": engine.identity.as_dict(),
        "software": {
            "countersign": importlib.metadata.version("countersign"),
            "python": platform.python_version(),
        },
        "protocol": {
            "name": protocol.name,
            "version": protocol.version,
            "digest": protocol.digest,
            "draft_language": said.language,
        },
        "pictures": [
            {
                "sha256": row.sha256,
                "instance_id": str(row.instance_id),
                "sop_instance_uid": headers[row.instance_id.hex].header.sop_instance_uid,
                "transfer_syntax_uid": headers[row.instance_id.hex].header.transfer_syntax_uid,
                "data_set_sha256": headers[row.instance_id.hex].sha256,
                "frame": row.frame,
                "height": row.height,
                "width": row.width,
                "caption": row.caption,
                "reason": row.reason,
                "rendering": row.rendering,
            }
            for row in case.pictures
        ],
        "omitted": list(case.omitted),
        "context": {
            "told": [fact for fact in protocol.context if _is_told(context, fact)],
            "prior_report": str(case.prior.report_id) if case.prior and context.prior_report else None,
        },
        "questions": [
            {
                "step": a.step,
                "question": a.question,
                "yes": a.is_yes,
                "probability": _rounded(a.probability),
                "mass": _rounded(a.mass),
            }
            for a in said.asked
        ]
        + [
            {"step": step.name, "question": step.question.get(said.language, ""), "yes": None}
            for step in said.unanswered
        ],
        "finish": [completion.finish for _, completion in said.calls],
    }


def _is_told(context: ReadingContext, fact: str) -> bool:
    return bool(getattr(context, {"age": "patient_age", "sex": "patient_sex"}.get(fact, fact)))


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)


def _sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
