"""Qwen2.5-VL's processor for pictures alone.

The library's own always builds its video half, and that needs torchvision, which we do without. Does not know the model.
"""

from __future__ import annotations

from typing import Any

from transformers import AutoTokenizer, Qwen2VLImageProcessorPil

PLACEHOLDER = "<|image_pad|>"


class PictureProcessor:
    """Does what the engine asks of a processor: one template, one call."""

    def __init__(self, image_processor: Any, tokenizer: Any) -> None:
        self.image_processor = image_processor
        self.tokenizer = tokenizer
        self.image_token_id = tokenizer.convert_tokens_to_ids(PLACEHOLDER)

    @classmethod
    def from_pretrained(cls, where: str, *, offline: bool) -> PictureProcessor:
        """Open the processor of a folder or hub id."""
        return cls(
            Qwen2VLImageProcessorPil.from_pretrained(where, local_files_only=offline),
            AutoTokenizer.from_pretrained(where, local_files_only=offline, trust_remote_code=False),
        )

    @property
    def chat_template(self) -> str | None:
        """The checkpoint's template."""
        return self.tokenizer.chat_template

    def apply_chat_template(self, conversation: list[dict[str, Any]], **options: Any) -> Any:
        """Render a conversation by the checkpoint's template."""
        return self.tokenizer.apply_chat_template(conversation, **options)

    def __call__(
        self,
        *,
        text: list[str],
        images: list[Any] | None,
        padding: bool,
        return_tensors: str,
        add_special_tokens: bool,
        input_data_format: str,
    ) -> dict[str, Any]:
        """Return token ids (rows, longest), patches, grids and token kinds.

        The kinds (``mm_token_type_ids``) must be there: without them the model silently counts positions as for text.
        """
        seen: dict[str, Any] = {}
        counts: list[int] = []
        if images:
            seen = dict(
                self.image_processor(images, return_tensors=return_tensors, input_data_format=input_data_format)
            )
            merged = self.image_processor.merge_size**2
            counts = [int(grid.prod()) // merged for grid in seen["image_grid_thw"]]
        encoded = self.tokenizer(
            _expanded(text, counts),
            padding=padding,
            return_tensors=return_tensors,
            add_special_tokens=add_special_tokens,
        )
        ids = encoded["input_ids"]  # (rows, longest)
        return {
            **seen,
            "input_ids": ids,
            "attention_mask": encoded["attention_mask"],
            "mm_token_type_ids": (ids == self.image_token_id).int(),
        }


def _expanded(text: list[str], counts: list[int]) -> list[str]:
    """Repeat each placeholder as often as its picture has tokens.

    Raises
    ------
    ValueError
        There are more or fewer placeholders than pictures.
    """
    if sum(row.count(PLACEHOLDER) for row in text) != len(counts):
        raise ValueError("placeholders and pictures do not agree")
    following = iter(counts)
    out = []
    for row in text:
        first, *rest = row.split(PLACEHOLDER)
        out.append(first + "".join(PLACEHOLDER * next(following) + part for part in rest))
    return out
