"""The engine that runs a model in this process: one thread owns it, many threads ask.

Prompts that wait are answered together. A prompt that harms its batch is found by running each alone. Does not know
what prompts mean, nor how the model is loaded.
"""

from __future__ import annotations

import queue
import threading
import time

import structlog
import torch

from record.errors import EngineRejected, EngineUnavailable
from worker.engines.contract import EngineIdentity, Prompt
from worker.engines.local.generation import run
from worker.engines.local.loading import Loaded
from worker.engines.ticket import Ticket, require_question

log = structlog.get_logger()

GATHER_S = 0.005
"""How long an idle engine waits for company after the first prompt: callers come back together."""


class LocalEngine:
    """An `Engine` over a loaded model."""

    def __init__(self, loaded: Loaded, *, slots: int) -> None:
        self._loaded = loaded
        self._slots = slots
        self._waiting: queue.SimpleQueue[Ticket | None] = queue.SimpleQueue()
        self._put_back: list[Ticket] = []
        self._closing = threading.Event()
        self._broken = False
        self._admission = threading.Lock()
        self._thread = threading.Thread(target=self._serve, name="engine", daemon=True)
        self._thread.start()

    @property
    def identity(self) -> EngineIdentity:
        """Which model this is."""
        return self._loaded.identity

    @property
    def slots(self) -> int:
        """How many prompts are answered together."""
        return self._slots

    def submit(self, prompt: Prompt) -> Ticket:
        """Take a prompt; see `Engine.submit`."""
        require_question(prompt)
        if prompt.samples < 1 or prompt.parameters.max_new_tokens < 1:
            raise EngineRejected("samples and max_new_tokens are at least 1", reason="parameters")
        ticket = Ticket(prompt)
        with self._admission:
            if self._closing.is_set():
                raise self._away()
            self._waiting.put(ticket)
        return ticket

    def close(self) -> None:
        """Stop between two tokens; whoever waits gets `EngineUnavailable`."""
        with self._admission:
            self._closing.set()
            self._waiting.put(None)
        self._thread.join()

    def _away(self) -> EngineUnavailable:
        why = "broken" if self._broken else "closed"
        return EngineUnavailable(f"the engine is {why}", reason=why)

    def _serve(self) -> None:
        while not self._closing.is_set():
            tickets = self._gather()
            if tickets:
                self._answer(tickets)
            if self._closing.is_set():
                for ticket in tickets:
                    ticket.fail(self._away())
        with self._admission:
            left, self._put_back = self._put_back, []
            while not self._waiting.empty():
                waiting = self._waiting.get()
                left += [] if waiting is None else [waiting]
        for ticket in left:
            ticket.fail(self._away())

    def _gather(self) -> list[Ticket]:
        """Return the next batch: what waits, in its order, up to the slots; a prompt that wants to be alone, alone."""
        batch: list[Ticket] = []
        rows = 0
        until = float("inf")
        while rows < self._slots:
            ticket = self._next(until)
            if ticket is None:
                break
            if ticket.over:
                continue
            samples = ticket.prompt.samples
            if batch and (ticket.prompt.alone or rows + samples > self._slots):
                self._put_back.insert(0, ticket)
                break
            batch.append(ticket)
            rows += samples
            until = min(until, time.monotonic() + GATHER_S)
            if ticket.prompt.alone:
                break
        return batch

    def _next(self, until: float) -> Ticket | None:
        if self._put_back:
            return self._put_back.pop(0)
        try:
            if until == float("inf"):
                return self._waiting.get()
            return self._waiting.get(timeout=max(0.0, until - time.monotonic()))
        except queue.Empty:
            return None

    def _answer(self, tickets: list[Ticket]) -> None:
        """Run a batch; if it fails, halve it for want of memory, else run each alone to find whose fault it is."""
        tickets = [ticket for ticket in tickets if not ticket.over]
        if not tickets or self._closing.is_set():
            return
        try:
            run(self._loaded, tickets, self._closing.is_set)
        except Exception as error:  # noqa: BLE001 - the engine thread's door: a prompt may fail, the engine goes on
            parts = self._parts(tickets, error)
        else:
            return
        for part in parts:  # outside the handler, so that the failed batch's tensors are free
            self._answer(part)

    def _parts(self, tickets: list[Ticket], error: Exception) -> list[list[Ticket]]:
        """Return what to run again after an error; fail what cannot be."""
        memory = _out_of_memory(error)
        log.warning(
            "batch_failed",
            error_type=type(error).__name__,
            count=len(tickets),
            code="out_of_memory" if memory else "error",
        )
        if isinstance(error, torch.AcceleratorError):  # the device's context is gone, for every prompt to come
            self._broken = True
            self._closing.set()
            for ticket in tickets:
                ticket.fail(self._away())
            return []
        if memory and self._loaded.device.type == "cuda":
            torch.cuda.empty_cache()
        if len(tickets) > 1:
            half = len(tickets) // 2
            return [tickets[:half], tickets[half:]] if memory else [[ticket] for ticket in tickets]
        tickets[0].fail(_rejection(error, memory=memory))
        return []


def _out_of_memory(error: Exception) -> bool:
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in str(error)


def _rejection(error: Exception, *, memory: bool) -> EngineRejected:
    if isinstance(error, EngineRejected):
        return error
    if memory:
        return EngineRejected("the prompt alone is too large for the device", reason="out_of_memory")
    rejection = EngineRejected("the model failed on this prompt", reason="model_error", error_type=type(error).__name__)
    rejection.__cause__ = error
    return rejection
