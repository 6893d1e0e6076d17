"""Builds the small network that reads phantoms: a LLaVA of about 1.3 million parameters with random weights.

It has the parts of HuatuoGPT-Vision (CLIP tower, two-layer projector, Qwen2), each shrunk, so that the loader meets
nothing special. Does not know phantoms or how training goes.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    CLIPVisionConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
    Qwen2Config,
)
from transformers.models.llava.image_processing_pil_llava import LlavaImageProcessorPil

from worker.engines.local.templates import HUATUO_LLAVA

SIDE_PX = 72
PATCH_PX = 12
PICTURE_TOKENS = (SIDE_PX // PATCH_PX) ** 2
POSITIONS = 1024
END = "<|endoftext|>"
PLACEHOLDER = "<image>"


def tokenizer(texts: Iterable[str]) -> PreTrainedTokenizerFast:
    """Return a byte-level BPE tokenizer learned from these texts: any text can be encoded, these ones briefly."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    bpe.train_from_iterator(
        sorted(texts) * 5, trainers.BpeTrainer(vocab_size=480, initial_alphabet=alphabet, show_progress=False)
    )
    bpe.add_special_tokens([AddedToken(word, special=True) for word in (END, PLACEHOLDER)])
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe, eos_token=END, pad_token=END, padding_side="left", model_max_length=POSITIONS
    )


def processor(words: PreTrainedTokenizerFast) -> LlavaProcessor:
    """Return the processor: pictures padded to a square, then resized; the prompt of HuatuoGPT-Vision."""
    pictures = LlavaImageProcessorPil(
        do_pad=True, size={"shortest_edge": SIDE_PX}, crop_size={"height": SIDE_PX, "width": SIDE_PX}
    )
    return LlavaProcessor(
        image_processor=pictures,
        tokenizer=words,
        patch_size=PATCH_PX,
        num_additional_image_tokens=1,
        vision_feature_select_strategy="default",
        chat_template=HUATUO_LLAVA,
    )


def network(words: PreTrainedTokenizerFast) -> Any:
    """Return the untrained network; its weights come from torch's current seed."""
    end = words.convert_tokens_to_ids(END)
    vision = CLIPVisionConfig(
        hidden_size=128, intermediate_size=256, num_hidden_layers=4, num_attention_heads=4,
        image_size=SIDE_PX, patch_size=PATCH_PX, projection_dim=64,
    )  # fmt: skip
    text = Qwen2Config(
        vocab_size=len(words), hidden_size=128, intermediate_size=384, num_hidden_layers=3, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=POSITIONS, rms_norm_eps=1e-6, rope_theta=1e4,
        tie_word_embeddings=False, bos_token_id=end, eos_token_id=end,
        initializer_range=0.08,  # 1/sqrt(width); at the usual 0.02 so narrow a network learns several times slower
    )  # fmt: skip
    built = LlavaForConditionalGeneration(
        LlavaConfig(
            vision_config=vision,
            text_config=text,
            image_token_index=words.convert_tokens_to_ids(PLACEHOLDER),
            image_seq_length=PICTURE_TOKENS,
            vision_feature_layer=-2,
            vision_feature_select_strategy="default",
        )
    )
    built.generation_config.eos_token_id = built.generation_config.pad_token_id = end
    built.generation_config.do_sample = False
    built.generation_config.max_new_tokens = 96
    return built
