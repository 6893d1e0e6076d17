"""How a closed question's options are written in a vocabulary, and which spellings are worth a pass of the model."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers
from transformers import PreTrainedTokenizerFast

from record.errors import EngineRejected
from worker.engines import Choice
from worker.engines.local.choices import Path, Question, question
from worker.engines.spelling import Alternative, heard, read, spellings


def llama_like(*words: str) -> PreTrainedTokenizerFast:
    """A vocabulary as LLaMA's: "▁" for a space, one put before every text, bytes for what it does not know."""
    pieces = ["<unk>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁"]
    letters = sorted({letter for word in words for letter in word} - {"▁"})
    vocabulary = {piece: number for number, piece in enumerate(dict.fromkeys([*pieces, *letters, *words]))}
    merges = []
    for word in words:
        for cut in range(1, len(word)):
            vocabulary.setdefault(word[: cut + 1], len(vocabulary))
            merges.append((word[:cut], word[cut]))
    bpe = Tokenizer(models.BPE(vocab=vocabulary, merges=list(dict.fromkeys(merges)), unk_token="<unk>",
                               fuse_unk=True, byte_fallback=True))  # fmt: skip
    bpe.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    bpe.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    bpe.add_special_tokens([AddedToken("</s>", special=True, normalized=False)])
    return PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token="</s>", unk_token="<unk>")


def pieces_of(tokenizer: PreTrainedTokenizerFast, *options: str) -> dict[str, str]:
    """Return each sequence of a question as text, and which option it says."""
    sequences = question(tokenizer, Choice(options))._sequences
    return {"|".join(tokenizer.convert_ids_to_tokens(list(path))): option for path, option in sequences.items()}


def test_words_are_found_with_and_without_the_space_that_llama_puts_before_them() -> None:
    told = pieces_of(llama_like("▁yes", "yes", "▁Yes", "▁no", "▁NO"), "yes", "no")
    assert (told["yes"], told["▁yes"], told["▁Yes"], told["▁no"], told["▁NO"]) == ("yes", "yes", "yes", "no", "no")
    assert len(told) == 12  # two options, three cases, with and without a space


def test_options_that_begin_with_the_same_space_are_told_apart() -> None:
    told = pieces_of(llama_like("是", "否"), "是", "否")
    assert told == {"是": "是", "▁|是": "是", "否": "否", "▁|否": "否"}


def test_what_the_vocabulary_lacks_is_written_in_bytes() -> None:
    told = pieces_of(llama_like("no", "▁no"), "是", "no")
    assert told["<0xE6>|<0x98>|<0xAF>"] == "是"


def test_an_option_that_is_a_control_word_is_refused() -> None:
    with pytest.raises(EngineRejected) as refused:
        question(llama_like("no"), Choice(("</s>", "no")))
    assert refused.value.facts["reason"] == "constraint"


def test_two_options_that_one_case_makes_alike_are_refused() -> None:
    with pytest.raises(EngineRejected) as refused:
        question(llama_like("I", "i"), Choice(("ı", "i")))
    assert refused.value.facts["reason"] == "constraint"


def answered(asked: Question, logprob: Callable[[Path], float], *, width: int = 1) -> list[Path]:
    """Answer a question by a made-up model, and return the paths that it was led along."""
    asked.note((), [logprob((token,)) for token in asked.followers(())])
    walked: list[Path] = []
    while paths := asked.wanted(width):
        for path in paths:
            for length in range(len(path) + 1):
                before = path[:length]
                asked.note(before, [logprob((*before, token)) for token in asked.followers(before)])
        walked += paths
    return walked


SEQUENCES: dict[Path, str] = {(1, 2): "yes", (1, 3): "no", (4,): "yes", (5, 6, 7): "no"}
LIKELY = {(1,): 0.5, (4,): 0.2, (5,): 0.1, (1, 2): 0.25, (1, 3): 0.75, (5, 6): 0.5, (5, 6, 7): 1.0}


@pytest.mark.parametrize("width", [1, 5])
def test_whole_sequences_are_compared_where_first_tokens_are_shared(width: int) -> None:
    asked = Question(("yes", "no"), SEQUENCES)
    walked = answered(asked, lambda path: math.log(LIKELY[path]), width=width)
    assert walked == [(1,), (5, 6)]
    chosen = asked.chosen()
    yes, no = 0.5 * 0.25 + 0.2, 0.5 * 0.75 + 0.1 * 0.5
    assert chosen.probabilities == {"yes": pytest.approx(yes / (yes + no)), "no": pytest.approx(no / (yes + no))}
    assert chosen.mass == pytest.approx(yes + no)
    assert (chosen.option, chosen.token_ids) == ("no", (1, 3))
    assert chosen.token_logprobs == (pytest.approx(math.log(0.5)), pytest.approx(math.log(0.75)))


def test_sequences_a_million_times_less_likely_are_left_out() -> None:
    asked = Question(("yes", "no"), SEQUENCES)
    assert answered(asked, lambda path: math.log(LIKELY[path] * (1e-8 if path[0] == 5 else 1.0))) == [(1,)]
    asked = Question(("yes", "no"), SEQUENCES)
    tiny = {(1,): 1e-30, (5,): 1e-29}  # nothing to compare them with: all are led along
    assert answered(asked, lambda path: -300.0 if path == (4,) else math.log(tiny.get(path, 0.5))) == [(5, 6), (1,)]
    assert sum(asked.chosen().probabilities.values()) == pytest.approx(1)


def test_a_word_is_said_in_four_cases_and_a_sign_in_one() -> None:
    assert spellings("no finding") == ["no finding", "No finding", "NO FINDING"]
    assert spellings("sí") == ["sí", "Sí", "SÍ"]
    assert spellings("是") == ["是"]


@pytest.mark.parametrize(
    ("text", "option"),
    [
        ("Yes.", "yes"), (" yes", "yes"), ("\nNO, nothing", "no"), ("normal", None), ("yes2", None), ("", None),
        ("I say yes", None), ("不是", None), ("是。", "是"), ("是否", None),
    ],
)  # fmt: skip
def test_a_text_says_an_option_only_by_beginning_with_it(text: str, option: str | None) -> None:
    assert read(("yes", "no", "是"), text) == option


def test_a_bare_space_speaks_for_nobody() -> None:
    told = heard(("yes", "no"), [Alternative(b" ", -0.1), Alternative(b" Y", -3.0), Alternative(b"No", -4.0)])
    assert told is not None
    assert told.option == "yes"
    assert told.mass == pytest.approx(math.exp(-3) + math.exp(-4))
