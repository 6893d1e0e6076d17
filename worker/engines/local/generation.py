"""Runs one batch from tickets to completions.

Knows encoding, rows and the library's decoding loop. Does not know queues, or what to do when a batch fails.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from itertools import zip_longest

import torch
from transformers import GenerationConfig, LogitsProcessorList, StoppingCriteriaList

from record.errors import EngineRejected
from worker.engines.contract import Completion, Parameters
from worker.engines.local.choices import Question, question
from worker.engines.local.encoding import Encoded, encode
from worker.engines.local.loading import Loaded
from worker.engines.local.rows import Led, Row, Rows
from worker.engines.ticket import Ticket


def run(loaded: Loaded, tickets: list[Ticket], closing: Callable[[], bool] = lambda: False) -> None:
    """Answer these tickets together; a ticket nobody waits for, or that `closing` interrupts, is left as it is.

    A closed question takes one step of the batch, and further passes only where an option is more than one token.

    Raises
    ------
    EngineRejected
        A prompt cannot be encoded; whose it is, shows when each is run alone.
    torch.OutOfMemoryError
        The batch is too large for the device.
    """
    askers = [(ticket, number) for ticket in tickets for number in range(ticket.prompt.samples)]
    questions = _questions(loaded, tickets)
    encoded = encode(loaded, [ticket.prompt for ticket, _ in askers])
    rows = [
        # Positions are counted without padding, so a row's room is its own affair and not its mates'.
        Row(ticket, _drawn(ticket.prompt.parameters, number), loaded.positions - tokens, leads=number == 0)
        if ticket not in questions
        else Led(ticket, questions[ticket], ())
        for (ticket, number), tokens in zip(askers, encoded.prompt_tokens, strict=True)
    ]
    for row, tokens in zip(rows, encoded.prompt_tokens, strict=True):
        if isinstance(row, Led) and tokens + questions[row.ticket].longest > loaded.positions:
            raise EngineRejected("the prompt leaves no room for its options", reason="prompt_too_long")
    _decode(loaded, encoded, rows, closing)
    if closing():
        return
    for ticket in tickets:
        own = [position for position, row in enumerate(rows) if row.ticket is ticket]
        written = [(position, row) for position in own if isinstance(row := rows[position], Row)]
        if any(rows[position].broken for position in own):
            ticket.fail(_not_finite())
        elif written and all(row.finish for _, row in written):
            first, *others = [_completion(loaded, encoded, row, position) for position, row in written]
            ticket.finish(replace(first, alternatives=tuple(others)))
    _lead(loaded, questions, len(rows), closing)
    for position, row in enumerate(rows):
        if isinstance(row, Led) and not row.ticket.over and not closing():
            row.ticket.finish(_choice(questions[row.ticket], encoded, row, position))


def _questions(loaded: Loaded, tickets: list[Ticket]) -> dict[Ticket, Question]:
    tokenizer = loaded.family.processor.tokenizer
    return {t: question(tokenizer, t.prompt.constraint) for t in tickets if t.prompt.constraint is not None}


def _lead(loaded: Loaded, questions: dict[Ticket, Question], width: int, closing: Callable[[], bool]) -> None:
    """Lead the model along the options' longer spellings, in batches no wider than the one that has fitted."""
    while not closing():
        wanted = [
            [Led(ticket, asked, path) for path in asked.wanted(width)]
            for ticket, asked in questions.items()
            if not ticket.over
        ]
        ranked = zip_longest(*wanted)  # everyone's likeliest first: what comes of it may spare the others
        rows = [row for rank in ranked for row in rank if row is not None][:width]
        if not rows:
            return
        _decode(loaded, encode(loaded, [row.ticket.prompt for row in rows]), rows, closing)
        for row in rows:
            if row.broken:
                row.ticket.fail(_not_finite())


def _not_finite() -> EngineRejected:
    return EngineRejected("the model returned logits that are not finite", reason="logits_not_finite")


def _drawn(parameters: Parameters, number: int) -> Parameters:
    return replace(parameters, seed=parameters.seed + number)


@torch.inference_mode()
def _decode(loaded: Loaded, encoded: Encoded, rows: Sequence[Row | Led], closing: Callable[[], bool]) -> None:
    streams = {id(row): Stream(loaded) for row in rows if row.leads}

    def told(row: Row) -> None:
        if row.leads:
            row.ticket.tell(streams[id(row)].text(row.token_ids))

    batch = Rows(rows, loaded.end_ids, told, closing)
    loaded.model.generate(
        **encoded.inputs,
        # A row picks its own token; the library only takes the largest logit, and stops when all rows say so.
        generation_config=GenerationConfig(
            do_sample=False,
            max_new_tokens=max(row.max_new_tokens for row in rows),
            eos_token_id=sorted(loaded.end_ids),
            pad_token_id=loaded.family.processor.tokenizer.pad_token_id,
        ),
        logits_processor=LogitsProcessorList([batch.choose]),
        stopping_criteria=StoppingCriteriaList([batch.watch]),
    )


def _completion(loaded: Loaded, encoded: Encoded, row: Row, position: int) -> Completion:
    return Completion(
        text=words(loaded, row.token_ids),
        finish=row.finish or "length",
        token_ids=tuple(row.token_ids),
        token_logprobs=tuple(row.logprobs),
        prompt_tokens=encoded.prompt_tokens[position],
        first_token_s=row.first_token_s,
        total_s=time.monotonic() - row.ticket.submitted,
        rendered_prompt=encoded.rendered[position],
        parameters=asdict(replace(row.parameters, max_new_tokens=row.max_new_tokens)),
        batch_size=len(encoded.rendered),
        batch_position=position,
    )


def _choice(question: Question, encoded: Encoded, row: Led, position: int) -> Completion:
    chosen = question.chosen()
    return Completion(
        text=chosen.option,
        finish="stop",
        token_ids=chosen.token_ids,
        token_logprobs=chosen.token_logprobs,
        prompt_tokens=encoded.prompt_tokens[position],
        first_token_s=row.first_token_s,
        total_s=time.monotonic() - row.ticket.submitted,
        rendered_prompt=encoded.rendered[position],
        parameters={"options": list(chosen.probabilities)},
        batch_size=len(encoded.rendered),
        batch_position=position,
        choices=chosen.probabilities,
        choice_mass=chosen.mass,
    )


def words(loaded: Loaded, token_ids: list[int]) -> str:
    """Return the text of an answer's tokens."""
    tokenizer = loaded.family.processor.tokenizer
    return str(tokenizer.decode(token_ids, skip_special_tokens=True, clean_up_tokenization_spaces=False))


class Stream:
    """Spells an answer out while it grows, without starting over at every token.

    Only a short tail is decoded again: text up to a point where the tail decodes to whole characters is settled.
    """

    _TAIL = 16

    def __init__(self, loaded: Loaded) -> None:
        self._loaded = loaded
        self._settled = ""
        self._start = 0

    def text(self, token_ids: list[int]) -> str:
        """Return the text of these tokens, without a last character that is not whole yet."""
        tail = words(self._loaded, token_ids[self._start :])
        if tail.endswith("\N{REPLACEMENT CHARACTER}"):
            return self._settled + tail.rstrip("\N{REPLACEMENT CHARACTER}")
        whole = self._settled + tail
        # Move on only where tokens join without a seam (some tokenizers drop a leading space).
        if len(token_ids) - self._start >= 2 * self._TAIL:
            cut = len(token_ids) - self._TAIL
            ahead, rest = words(self._loaded, token_ids[self._start : cut]), words(self._loaded, token_ids[cut:])
            if ahead + rest == tail:
                self._settled, self._start = self._settled + ahead, cut
        return whole
