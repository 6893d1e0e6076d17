"""Qwen2.5-VL checkpoints, by a small one with random weights: same engine, same promises."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2VLImageProcessorPil,
)

from record.errors import EngineRejected
from worker.engines import Choice, Completion, Message, Parameters, Picture, Prompt
from worker.engines.local import selftest
from worker.engines.local.encoding import encode
from worker.engines.local.generation import run
from worker.engines.local.loading import Loaded, load
from worker.engines.local.qwen import PLACEHOLDER
from worker.engines.ticket import Ticket

END, PAD = "<|im_end|>", "<|endoftext|>"
SPECIAL = (PAD, "<|im_start|>", END, "<|vision_start|>", "<|vision_end|>", PLACEHOLDER, "<|video_pad|>")
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{% for c in m['content'] %}"
    "{% if c['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>{% else %}{{ c['text'] }}{% endif %}"
    "{% endfor %}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    folder = tmp_path_factory.mktemp("qwen")
    torch.manual_seed(0)
    torch.set_num_threads(1)
    _build(folder)
    return load(str(folder), name="small qwen")


def _build(folder: Path) -> None:
    bytes_only = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))},
                                      merges=[]))  # fmt: skip
    bytes_only.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bytes_only.decoder = decoders.ByteLevel()
    bytes_only.add_special_tokens([AddedToken(word, special=True) for word in SPECIAL])
    words = PreTrainedTokenizerFast(tokenizer_object=bytes_only, eos_token=END, pad_token=PAD, chat_template=TEMPLATE)
    number = words.convert_tokens_to_ids
    text = {
        "vocab_size": len(words), "hidden_size": 48, "intermediate_size": 96, "num_hidden_layers": 2,
        "num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": 2048, "eos_token_id": number(END),
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [4, 4, 4]},
        "initializer_range": 0.2,
    }  # fmt: skip
    vision = {
        "depth": 2, "hidden_size": 32, "intermediate_size": 64, "num_heads": 2, "out_hidden_size": 48, "patch_size": 14,
        "spatial_merge_size": 2, "temporal_patch_size": 2, "window_size": 56, "fullatt_block_indexes": [1],
        "initializer_range": 0.2,
    }  # fmt: skip
    config = Qwen2_5_VLConfig(
        text_config=text, vision_config=vision, image_token_id=number(PLACEHOLDER), tie_word_embeddings=False,
        video_token_id=number("<|video_pad|>"), vision_start_token_id=number("<|vision_start|>"),
        vision_end_token_id=number("<|vision_end|>"),
    )  # fmt: skip
    model = Qwen2_5_VLForConditionalGeneration(config).eval()
    model.generation_config.eos_token_id = [number(END), number(PAD)]
    model.save_pretrained(folder)
    Qwen2VLImageProcessorPil(size={"shortest_edge": 56 * 56, "longest_edge": 112 * 112}).save_pretrained(folder)
    words.save_pretrained(folder)


def picture(seed: int, rows: int = 96, columns: int = 64) -> Picture:
    pixels = np.random.default_rng(seed).integers(0, 255, (rows, columns, 3), dtype=np.uint8)
    return Picture(f"{seed:064d}", pixels)


def answers(loaded: Loaded, prompts: list[Prompt]) -> list[Completion]:
    tickets = [Ticket(prompt) for prompt in prompts]
    run(loaded, tickets)
    return [ticket.result(0) for ticket in tickets]


def prompt(*pictures: Picture, text: str = "What is this?") -> Prompt:
    return Prompt((Message("system", "Be brief."), Message("user", text, pictures)), Parameters(max_new_tokens=10))


def test_it_passes_the_self_test(loaded: Loaded) -> None:
    selftest.check(loaded)


def test_a_batch_of_unequal_prompts_gives_the_tokens_that_each_gets_alone(loaded: Loaded) -> None:
    several = [
        prompt(picture(1)),
        prompt(picture(2, 80, 120), picture(3), text="Describe both."),
        prompt(text="No picture."),
        prompt(picture(1)),
    ]
    batched = answers(loaded, several)
    assert [c.token_ids for c in batched] == [answers(loaded, [one])[0].token_ids for one in several]
    assert batched[0].token_ids == batched[3].token_ids


def test_closed_questions_are_answered_in_a_batch_as_alone_and_by_the_picture(loaded: Loaded) -> None:
    several = [
        replace(prompt(*pictures), constraint=Choice(("是", "否")) if closed else None)
        for pictures, closed in [
            ((picture(1),), True),
            ((picture(2), picture(3)), False),
            ((picture(2, 80, 120),), True),
        ]
    ]
    batched = answers(loaded, several)
    alone = [answers(loaded, [one])[0] for one in several]
    assert [(c.text, c.token_ids) for c in batched] == [(c.text, c.token_ids) for c in alone]
    for one, other in zip(batched, alone, strict=True):
        assert one.choices == pytest.approx(other.choices, abs=1e-3)
    assert batched[0].choices["是"] != pytest.approx(batched[2].choices["是"], rel=1e-3)


def test_pixels_reach_the_words_and_their_order_matters(loaded: Loaded) -> None:
    one, other = picture(1), picture(2)
    assert answers(loaded, [prompt(one)])[0].token_logprobs != answers(loaded, [prompt(other)])[0].token_logprobs
    both = [answers(loaded, [prompt(*pictures)])[0] for pictures in ((one, other), (other, one))]
    assert both[0].token_logprobs != both[1].token_logprobs


def test_token_kinds_and_grids_are_given_so_that_positions_are_those_of_pictures(loaded: Loaded) -> None:
    inputs = encode(loaded, [prompt(picture(1), picture(2))]).inputs
    tokens = (inputs["input_ids"] == loaded.picture_token_id).sum()
    assert tokens == inputs["mm_token_type_ids"].sum() == sum(int(g.prod()) // 4 for g in inputs["image_grid_thw"])


def test_typed_placeholders_are_no_pictures(loaded: Loaded) -> None:
    typed = prompt(picture(1), text=f"{PLACEHOLDER}<|vision_start|> What is this?")
    assert answers(loaded, [typed])[0].rendered_prompt.count(PLACEHOLDER) == 1


def test_both_end_tokens_end_an_answer(loaded: Loaded) -> None:
    assert len(loaded.end_ids) == 2


def test_a_folder_without_a_processor_is_refused(loaded: Loaded, tmp_path: Path) -> None:
    loaded.model.save_pretrained(tmp_path)
    with pytest.raises(EngineRejected) as rejection:
        load(str(tmp_path), name="bare")
    assert rejection.value.facts["reason"] == "no_processor"
