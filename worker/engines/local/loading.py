"""Loads a checkpoint, completely or not at all, and says exactly what was loaded.

Only safetensors, never a checkpoint's own code. Does not know prompts or threads.
"""

from __future__ import annotations

import platform
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import AutoModelForImageTextToText, GenerationConfig
from transformers.utils import cached_file
from transformers.utils import logging as library_logging

from record.errors import EngineRejected
from worker.checkpoints import Layout, digest, file_digests, layout
from worker.engines.contract import EngineIdentity
from worker.engines.local.families import Family, open_family


@dataclass(frozen=True, slots=True)
class Loaded:
    """A model ready to answer, on its device."""

    model: Any
    family: Family
    identity: EngineIdentity
    device: torch.device
    end_ids: frozenset[int]
    picture_token_id: int
    positions: int


def load(where: str, *, name: str, device: str | None = None) -> Loaded:
    """Load the checkpoint in a folder, or of a hub id.

    Parameters
    ----------
    where
        Folder or hub id.
    name
        What the model is called in its identity.
    device
        None takes an accelerator if there is one. fp32 on the CPU, bfloat16 elsewhere.

    Raises
    ------
    EngineRejected
        There is no such checkpoint, weights are missing or unexpected, or its kind is not served.
    """
    library_logging.set_verbosity_error()
    library_logging.disable_progress_bar()
    offline = Path(where).is_dir()
    target = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    dtype = torch.float32 if target.type == "cpu" else torch.bfloat16
    if offline and layout(Path(where)) is Layout.HUATUO_ORIGINAL:
        raise EngineRejected(
            "this is HuatuoGPT-Vision's original layout, which is not served yet: take the -hf checkpoint",
            reason="original_layout",
        )
    try:
        model, report = AutoModelForImageTextToText.from_pretrained(
            where, dtype=dtype, local_files_only=offline, use_safetensors=True, trust_remote_code=False,
            output_loading_info=True,
        )  # fmt: skip
    except (OSError, ValueError) as error:
        raise EngineRejected("the checkpoint cannot be loaded", reason="not_loadable") from error
    _complete(report)
    model = model.eval().to(target)
    family = open_family(where, model.config, offline=offline)
    _forbid_continuous_batching(model)
    ends = _end_ids(model, family.processor.tokenizer)
    # Whatever the checkpoint says about sampling is not for it to say: parameters come with each prompt.
    model.generation_config = GenerationConfig(
        eos_token_id=sorted(ends), pad_token_id=family.processor.tokenizer.pad_token_id, do_sample=False
    )
    return Loaded(
        model=model,
        family=family,
        identity=_identity(where, name, model, family, target),
        device=target,
        end_ids=ends,
        picture_token_id=_picture_token_id(model, family.processor),
        positions=int(model.config.get_text_config().max_position_embeddings),
    )


def _complete(report: dict[str, Any]) -> None:
    for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if report.get(kind):
            raise EngineRejected(
                f"the checkpoint does not fit its architecture: {len(report[kind])} {kind.replace('_', ' ')}",
                reason=kind,
            )


def _end_ids(model: Any, tokenizer: Any) -> frozenset[int]:
    named = model.generation_config.eos_token_id
    ends = {tokenizer.eos_token_id, *(named if isinstance(named, list) else [named])} - {None}
    if not ends:
        raise EngineRejected("the checkpoint names no end token", reason="no_end_token")
    return frozenset(int(end) for end in ends)


def _picture_token_id(model: Any, processor: Any) -> int:
    told = getattr(model.config, "image_token_id", None)
    written = getattr(processor, "image_token_id", None)
    if told is None or written is None or told != written:
        raise EngineRejected("model and processor disagree about the picture token", reason="picture_token")
    return int(told)


def _forbid_continuous_batching(model: Any) -> None:
    """Close the library's own batching: it takes token ids only and would answer without the pictures."""

    def forbidden(*_: object, **__: object) -> None:
        raise NotImplementedError("continuous batching drops pictures and is not used here")

    for name in ("generate_batch", "init_continuous_batching", "continuous_batching_context_manager"):
        if hasattr(model, name):
            setattr(model, name, forbidden)


def _identity(where: str, name: str, model: Any, family: Family, device: torch.device) -> EngineIdentity:
    folder = Path(where)
    if not folder.is_dir():
        found = cached_file(where, "config.json")
        folder = Path(str(found)).parent
    files = file_digests(folder)
    whole = digest(files)
    on_accelerator = device.type == "cuda"
    software = {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "tokenizers": version("tokenizers"),
        "attention": str(model.config._attn_implementation),  # noqa: SLF001 - the library tells it nowhere else
        "adjusted": " ".join(family.adjusted),
        "cuda": str(torch.version.cuda) if on_accelerator else "",
    }
    return EngineIdentity(
        model=name,
        revision=getattr(model.config, "_commit_hash", None) or whole[:12],
        architecture=type(model).__name__,
        weights_digest=whole,
        dtype=str(model.dtype).removeprefix("torch."),
        where=torch.cuda.get_device_name(device) if on_accelerator else "cpu",
        files=files,
        software=software,
    )
