"""Turns prompts into one left-padded batch of token ids and picture features, and checks that no picture got lost.

Knows processors and the picture tower. Does not know how tokens are chosen, threads or deadlines.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from transformers.modeling_outputs import BaseModelOutputWithPooling

from record.errors import EngineRejected
from worker.engines.contract import Message, Prompt
from worker.engines.local.loading import Loaded
from worker.engines.wording import sanitised


@dataclass(frozen=True, slots=True)
class Encoded:
    """A batch as the model takes it.

    Attributes
    ----------
    inputs
        Everything `generate` needs; ``input_ids`` has shape (rows, longest prompt).
    rendered
        Each row's prompt as text.
    prompt_tokens
        Each row's length without padding.
    """

    inputs: dict[str, Any]
    rendered: list[str]
    prompt_tokens: list[int]


def encode(loaded: Loaded, prompts: list[Prompt]) -> Encoded:
    """Encode prompts together.

    Raises
    ------
    EngineRejected
        A picture is no picture, the model would not see every picture, or a prompt leaves no room for an answer.
    """
    processor = loaded.family.processor
    rendered = [render(loaded, prompt) for prompt in prompts]
    pictures = [picture for prompt in prompts for picture in prompt.pictures]
    for picture in pictures:
        if picture.pixels.dtype != np.uint8 or picture.pixels.ndim != 3 or picture.pixels.shape[2] != 3:
            raise EngineRejected("a picture is not uint8 of shape (rows, columns, 3)", reason="picture_shape")
    pixels = [picture.pixels for picture in pictures]
    inputs = dict(
        processor(
            text=rendered,
            images=pixels or None,
            padding=True,
            return_tensors="pt",
            add_special_tokens=False,
            input_data_format="channels_last",
        )
    )
    mask = inputs["attention_mask"]  # (rows, longest)
    prompt_tokens = [int(n) for n in mask.sum(1)]
    if max(prompt_tokens) >= loaded.positions:
        raise EngineRejected("the prompt leaves no room for an answer", reason="prompt_too_long")
    _count(loaded, prompts, inputs)
    inputs = {name: _placed(value, loaded) for name, value in inputs.items()}
    if pictures and loaded.family.one_row_per_picture:
        inputs["mm_encoder_outputs"] = {
            "image": _features(loaded, inputs.pop("pixel_values"), [picture.digest for picture in pictures])
        }
        _features_fit(loaded, inputs)
    return Encoded(inputs, rendered, prompt_tokens)


def render(loaded: Loaded, prompt: Prompt) -> str:
    """Return the prompt as the text the model is given, one placeholder for each picture."""
    messages = prompt.messages if loaded.family.system_turn else _folded(prompt.messages)
    special = loaded.family.processor.tokenizer.all_special_tokens
    conversation = [
        {
            "role": message.role,
            "content": [
                *({"type": "image"} for _ in message.pictures),
                {"type": "text", "text": sanitised(message.text, special)},
            ],
        }
        for message in messages
    ]
    text = loaded.family.processor.apply_chat_template(conversation, tokenize=False, add_generation_prompt=True)
    return str(text)


def _folded(messages: tuple[Message, ...]) -> tuple[Message, ...]:
    """Put system text at the head of the next user turn, for families without a system turn."""
    out: list[Message] = []
    waiting: list[str] = []
    for message in messages:
        if message.role == "system":
            waiting.append(message.text)
        elif message.role == "user" and waiting:
            out.append(Message("user", "\n".join([*waiting, message.text]), message.pictures))
            waiting = []
        else:
            out.append(message)
    return tuple(out)


def _placed(value: Any, loaded: Loaded) -> Any:
    if not isinstance(value, torch.Tensor):
        return value
    return value.to(loaded.device, loaded.model.dtype if value.is_floating_point() else None)


def _count(loaded: Loaded, prompts: list[Prompt], inputs: dict[str, Any]) -> None:
    """Check that pixels are there and that each row has placeholders exactly if it has pictures.

    The library accepts placeholders without pixels and answers as if it had seen something.
    """
    shown = sum(len(prompt.pictures) for prompt in prompts)
    if shown and "pixel_values" not in inputs:
        raise EngineRejected("the processor returned no pixels", reason="pixels_missing", pictures=shown)
    placeholders = (inputs["input_ids"] == loaded.picture_token_id).sum(1).tolist()  # one count a row
    for prompt, tokens in zip(prompts, placeholders, strict=True):
        uneven = _fixed(loaded) and tokens % max(1, len(prompt.pictures)) != 0
        if bool(prompt.pictures) != bool(tokens) or uneven:
            raise EngineRejected("picture tokens and pictures do not agree", reason="picture_tokens", tokens=tokens)
    if _fixed(loaded) and shown and len(inputs["pixel_values"]) != shown:
        raise EngineRejected("not every picture was encoded", reason="pictures_lost", pictures=shown)


def _fixed(loaded: Loaded) -> bool:
    return loaded.family.one_row_per_picture


@torch.inference_mode()
def _features(loaded: Loaded, pixel_values: torch.Tensor, digests: list[str]) -> BaseModelOutputWithPooling:
    """Send each distinct picture through the tower once and hand its features to every place it appears in."""
    first = {digest: index for index, digest in reversed(list(enumerate(digests)))}
    order = {digest: row for row, digest in enumerate(first)}
    distinct = pixel_values[list(first.values())]  # (distinct pictures, 3, rows, columns)
    features = loaded.model.get_image_features(pixel_values=distinct, return_dict=True).pooler_output
    return BaseModelOutputWithPooling(pooler_output=[features[order[digest]] for digest in digests])


def _features_fit(loaded: Loaded, inputs: dict[str, Any]) -> None:
    given = sum(len(feature) for feature in inputs["mm_encoder_outputs"]["image"].pooler_output)
    expected = int((inputs["input_ids"] == loaded.picture_token_id).sum())
    if given != expected:
        raise EngineRejected("picture tokens and features do not agree", reason="picture_tokens", tokens=expected)
