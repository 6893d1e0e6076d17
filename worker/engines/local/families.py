"""What differs from one family of checkpoints to the next, so that the rest of the engine need not ask.

Knows processors and their gaps: published LLaVA checkpoints lack fields that today's library wants, and crop where
their authors padded. Does not know prompts, batches or devices.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from transformers import AutoProcessor
from transformers.models.llava.image_processing_pil_llava import LlavaImageProcessorPil

from record.errors import EngineRejected
from worker.engines.local.qwen import PictureProcessor
from worker.engines.local.templates import HUATUO_LLAVA


@dataclass(frozen=True, slots=True)
class Family:
    """How one family is asked.

    Attributes
    ----------
    system_turn
        The template has one; without, system text opens the first user turn.
    one_row_per_picture
        ``pixel_values`` has one row per picture, so equal pictures can share one pass through the tower.
    adjusted
        What was set on the processor because the checkpoint did not say, or said what would lose pixels.
    """

    processor: Any
    system_turn: bool
    one_row_per_picture: bool
    adjusted: tuple[str, ...] = ()


def open_family(where: str, config: Any, *, offline: bool) -> Family:
    """Open the checkpoint's processor and make it complete.

    Raises
    ------
    EngineRejected
        No processor can be made for this checkpoint here.
    """
    try:
        processor = _processor(where, config, offline=offline)
    except (OSError, ValueError, ImportError, AttributeError) as error:
        raise EngineRejected(
            f"no processor can be made for a {config.model_type} checkpoint in this installation",
            reason="no_processor",
            model_type=config.model_type,
        ) from error
    if config.model_type == "llava":
        family = Family(
            processor, system_turn=False, one_row_per_picture=True, adjusted=_complete_llava(processor, config)
        )
    else:
        family = Family(processor, system_turn=True, one_row_per_picture=False)
    tokenizer = processor.tokenizer
    tokenizer.padding_side = "left"
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    if getattr(processor, "chat_template", None) is None and tokenizer.chat_template is None:
        raise EngineRejected("the checkpoint brings no chat template", reason="no_template")
    return family


def _processor(where: str, config: Any, *, offline: bool) -> Any:
    if config.model_type == "qwen2_5_vl":
        return PictureProcessor.from_pretrained(where, offline=offline)
    return AutoProcessor.from_pretrained(where, local_files_only=offline, trust_remote_code=False)


def _complete_llava(processor: Any, config: Any) -> tuple[str, ...]:
    """Fill what published LLaVA processors leave open, and pad instead of cropping; return what was changed."""
    wanted = {
        "patch_size": config.vision_config.patch_size,
        "vision_feature_select_strategy": config.vision_feature_select_strategy,
        "num_additional_image_tokens": 1 if config.vision_config.model_type == "clip_vision_model" else 0,
    }
    changed = [name for name, value in wanted.items() if getattr(processor, name, None) != value]
    for name in changed:
        setattr(processor, name, wanted[name])
    if not getattr(processor.image_processor, "do_pad", False):
        processor.image_processor = _padding(processor.image_processor)
        changed.append("do_pad")
    if processor.chat_template is None:
        processor.chat_template = processor.tokenizer.chat_template or HUATUO_LLAVA
        changed.append("chat_template")
    return tuple(changed)


def _padding(cropping: Any) -> LlavaImageProcessorPil:
    """Return a picture processor that pads to a square in the mean colour, sized and scaled as this one."""
    kept = ("size", "crop_size", "image_mean", "image_std", "resample", "rescale_factor")
    given = {name: getattr(cropping, name) for name in kept if getattr(cropping, name, None) is not None}
    return LlavaImageProcessorPil(do_pad=True, **given)
