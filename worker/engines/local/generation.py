"""Runs one batch from tickets to completions.

Knows encoding, rows and the library's decoding loop. Does not know queues, or what to do when a batch fails.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, replace

import torch
from transformers import GenerationConfig, LogitsProcessorList, StoppingCriteriaList

from record.errors import EngineRejected
from worker.engines.contract import Completion, Parameters
from worker.engines.local.encoding import Encoded, encode
from worker.engines.local.loading import Loaded
from worker.engines.local.rows import Row, Rows
from worker.engines.ticket import Ticket


def run(loaded: Loaded, tickets: list[Ticket], closing: Callable[[], bool] = lambda: False) -> None:
    """Answer these tickets together; a ticket nobody waits for, or that `closing` interrupts, is left as it is.

    Raises
    ------
    EngineRejected
        A prompt cannot be encoded; whose it is, shows when each is run alone.
    torch.OutOfMemoryError
        The batch is too large for the device.
    """
    askers = [(ticket, number) for ticket in tickets for number in range(ticket.prompt.samples)]
    encoded = encode(loaded, [ticket.prompt for ticket, _ in askers])
    rows = [
        # Positions are counted without padding, so a row's room is its own affair and not its mates'.
        Row(ticket, _drawn(ticket.prompt.parameters, number), loaded.positions - tokens, leads=number == 0)
        for (ticket, number), tokens in zip(askers, encoded.prompt_tokens, strict=True)
    ]
    _decode(loaded, encoded, rows, closing)
    if closing():
        return
    for ticket in tickets:
        own = [position for position, row in enumerate(rows) if row.ticket is ticket]
        if any(rows[position].broken for position in own):
            ticket.fail(EngineRejected("the model returned logits that are not finite", reason="logits_not_finite"))
        elif all(rows[position].finish for position in own):
            first, *others = [_completion(loaded, encoded, rows, position) for position in own]
            ticket.finish(replace(first, alternatives=tuple(others)))


def _drawn(parameters: Parameters, number: int) -> Parameters:
    return replace(parameters, seed=parameters.seed + number)


@torch.inference_mode()
def _decode(loaded: Loaded, encoded: Encoded, rows: list[Row], closing: Callable[[], bool]) -> None:
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


def _completion(loaded: Loaded, encoded: Encoded, rows: list[Row], position: int) -> Completion:
    row = rows[position]
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
        batch_size=len(rows),
        batch_position=position,
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
