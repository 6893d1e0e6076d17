"""An engine behind an OpenAI-compatible server (vLLM, SGLang, our own ``serve``): ``/v1/chat/completions``.

Knows the wire. Pictures travel as PNG data URLs; answers are streamed, so that a cancel closes the connection and the
server may stop. Does not know templates or weights: the server renders and runs them.

What a server's failure says about the prompt:

| answer | error | whose fault |
|---|---|---|
| none, 408, 425, 429, 503 | `EngineUnavailable` | nobody's: the server is away or busy |
| 401, 403, 404 | `EngineUnavailable` | nobody's: a key or a model that a person must mend |
| 500, an error within the answer | `EngineUnavailable`, ``prompt=True`` | perhaps the prompt's: it may not try for ever |
| 502, 504 | as 500 while the server still lists its models, as 503 when it does not | |
| 400, 413, 422 and the like | `EngineRejected` | the prompt's |

A closed question (`Choice`) is asked greedily and briefly, its words left free, with ``logprobs`` and ``top_logprobs``
20: servers agree on no way to force a grammar, and one that is forced may bend the probabilities that are told. Each
alternative to the answer's first token (``logprobs.content[0].top_logprobs``: ``token``, ``logprob`` and, where given,
``bytes``) speaks for the one option that it says or begins, whatever its case, with or without a space before it; what
is not among the 20 counts nothing. Where they cannot tell (see `heard`), the text is read instead and no probability is
made up; a text that begins with no option is rejected.
"""

from __future__ import annotations

import base64
import io
import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from http import HTTPStatus
from typing import Any
from urllib.parse import urlsplit

import httpx
from PIL import Image

from record.errors import EngineRejected, EngineUnavailable
from worker.engines.contract import Choice, Completion, EngineIdentity, Finish, Message, Picture, Prompt
from worker.engines.spelling import Alternative, heard, read
from worker.engines.ticket import Ticket, require_question
from worker.engines.wording import sanitised

CONNECT_S = 2.0
SILENCE_S = 60.0
"""How long the server may say nothing before the first token or between two."""

TOP_LOGPROBS = 20
"""The most that OpenAI's API allows, and vLLM unless told otherwise."""

_PASSING = frozenset({408, 425, 429})
_TO_BE_MENDED = frozenset({401, 403, 404})
_GATEWAYS = frozenset({502, 504})


@dataclass(slots=True)
class _Told:
    """One of the server's answers, as far as it has come."""

    text: str = ""
    finish: Finish | None = None
    logprobs: list[float] = field(default_factory=list)
    token_ids: list[int] = field(default_factory=list)
    first_token: bytes = b""
    alternatives: list[Alternative] = field(default_factory=list)


class RemoteEngine:
    """An `Engine` over HTTP.

    Parameters
    ----------
    url
        Base address, with or without ``/v1``.
    model
        The name the server lists.
    """

    def __init__(
        self, url: str, *, model: str, api_key: str | None = None, slots: int = 4, silence_s: float = SILENCE_S
    ) -> None:
        base = url.rstrip("/").removesuffix("/v1") + "/v1/"
        self._slots = slots
        self._silence_s = silence_s
        self._closing = threading.Event()
        self._admission = threading.Lock()
        self._live: set[Ticket] = set()
        self._client = httpx.Client(
            base_url=base,
            headers={"Authorization": f"Bearer {api_key}"} if api_key else {},
            timeout=httpx.Timeout(silence_s, connect=CONNECT_S, pool=None),
            limits=httpx.Limits(max_connections=slots + 1),
        )
        try:
            self._identity = self._identify(model, urlsplit(base).netloc.rpartition("@")[2])
        except BaseException:
            self._client.close()
            raise
        self._pool = ThreadPoolExecutor(slots, thread_name_prefix="remote")

    @property
    def identity(self) -> EngineIdentity:
        """Which model the server says it runs; its weights cannot be seen from here."""
        return self._identity

    @property
    def slots(self) -> int:
        """How many requests are open at once."""
        return self._slots

    def submit(self, prompt: Prompt) -> Ticket:
        """Take a prompt; see `Engine.submit`."""
        require_question(prompt)
        ticket = Ticket(prompt)
        with self._admission:
            if self._closing.is_set():
                raise _closed()
            self._live.add(ticket)
            self._pool.submit(self._answer, ticket)
        return ticket

    def close(self) -> None:
        """Stop at the next word; whoever waits gets `EngineUnavailable`."""
        with self._admission:
            self._closing.set()
            left = list(self._live)
        for ticket in left:
            ticket.fail(_closed())
        self._client.close()
        self._pool.shutdown(wait=False, cancel_futures=True)  # a thread may wait for a silent server a while yet

    def _identify(self, model: str, host: str) -> EngineIdentity:
        try:
            response = self._client.get("models")
            _check(response.status_code)
            listed = {entry["id"]: entry for entry in response.json()["data"]}
        except httpx.HTTPError as error:
            raise EngineUnavailable("the engine's server does not answer", error_type=type(error).__name__) from error
        except (ValueError, KeyError, TypeError) as error:
            raise EngineUnavailable("the engine's server lists no models", reason="malformed_answer") from error
        if model not in listed:
            raise EngineRejected(
                f"the engine's server does not serve {model!r} but {', '.join(sorted(listed)) or 'nothing'}",
                reason="unknown_model",
            )
        entry = listed[model]
        software = {"server": response.headers.get("server", ""), "owned_by": str(entry.get("owned_by", ""))}
        return EngineIdentity(
            model=model,
            revision=str(entry.get("root", "")),
            architecture="",
            weights_digest="",
            dtype="",
            where=host,
            software=software,
        )

    def _answer(self, ticket: Ticket) -> None:
        try:
            if not ticket.over:
                self._stream(ticket)
        except httpx.HTTPError as error:
            ticket.fail(EngineUnavailable("the engine's server went away", error_type=type(error).__name__))
        except (EngineUnavailable, EngineRejected) as error:
            ticket.fail(error)
        except Exception as error:  # noqa: BLE001 - the engine threads' door; also a client closed under us
            ticket.fail(EngineUnavailable("the engine's answer cannot be read", error_type=type(error).__name__))
        finally:
            with self._admission:
                self._live.discard(ticket)

    def _stream(self, ticket: Ticket) -> None:
        body = _body(self._identity.model, ticket.prompt)
        told = [_Told() for _ in range(ticket.prompt.samples)]
        first_token_s: float | None = None
        prompt_tokens = 0
        patience = httpx.Timeout(min(self._silence_s, max(0.01, ticket.left_s)), connect=CONNECT_S, pool=None)
        with self._client.stream("POST", "chat/completions", json=body, timeout=patience) as response:
            self._check(response.status_code)
            for chunk in _chunks(response):
                if ticket.over:
                    return  # leaving closes the connection: the server may stop
                if self._closing.is_set():
                    raise _closed()
                prompt_tokens = (chunk.get("usage") or {}).get("prompt_tokens", prompt_tokens)
                for choice in chunk.get("choices", ()):
                    _add(told[choice.get("index", 0)], choice)
                if first_token_s is None and told[0].text:
                    first_token_s = time.monotonic() - ticket.submitted
                if ticket.prompt.constraint is None:
                    ticket.tell(told[0].text)
        total_s = time.monotonic() - ticket.submitted
        completions = []
        for answer in told:
            if answer.finish is None:
                raise EngineUnavailable("the engine's answer broke off", reason="cut_off")
            completions.append(
                Completion(
                    text=answer.text,
                    finish=answer.finish,
                    token_ids=tuple(answer.token_ids),
                    token_logprobs=tuple(answer.logprobs),
                    prompt_tokens=prompt_tokens,
                    first_token_s=total_s if first_token_s is None else first_token_s,
                    total_s=total_s,
                    rendered_prompt=_without_pictures(body["messages"], ticket.prompt),
                    parameters={name: value for name, value in body.items() if name != "messages"},
                )
            )
        first, *others = completions
        if ticket.prompt.constraint is not None:
            first = _settled(first, told[0], ticket.prompt.constraint)
        ticket.finish(replace(first, alternatives=tuple(others)))

    def _check(self, status: int) -> None:
        """Refuse what is no answer to a prompt; see the module's table."""
        if status == HTTPStatus.INTERNAL_SERVER_ERROR or status in _GATEWAYS:
            blamed = status not in _GATEWAYS or self._is_there()
            raise EngineUnavailable(f"the engine's server answered {status}", status=status, prompt=blamed)
        _check(status)

    def _is_there(self) -> bool:
        try:
            return self._client.get("models", timeout=CONNECT_S).is_success
        except httpx.HTTPError:
            return False


def _closed() -> EngineUnavailable:
    return EngineUnavailable("the engine is closed", reason="closed")


def _check(status: int) -> None:
    """A wrong key or a model that is not loaded is no reading's fault: it waits until somebody mends the server."""
    if status >= 500 or status in _PASSING or status in _TO_BE_MENDED:
        raise EngineUnavailable(f"the engine's server answered {status}", status=status)
    if status >= 300:
        raise EngineRejected(f"the engine's server answered {status}", reason="refused", status=status)


def _body(model: str, prompt: Prompt) -> dict[str, Any]:
    """Return the request; a repetition penalty is the server's kind, which may count the prompt as well."""
    parameters = prompt.parameters
    body: dict[str, Any] = {
        "model": model,
        "messages": [_message(message) for message in prompt.messages],
        "max_tokens": parameters.max_new_tokens,
        "temperature": parameters.temperature,
        "seed": parameters.seed,
        "n": prompt.samples,
        "logprobs": True,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    if prompt.constraint is not None:
        longest = max(len(option.encode()) for option in prompt.constraint.options)
        # No token is less than a byte; one more for a space before the words, one for what shows where they end.
        return body | {"max_tokens": longest + 2, "temperature": 0.0, "top_logprobs": TOP_LOGPROBS}
    if parameters.repetition_penalty != 1.0:
        body["repetition_penalty"] = parameters.repetition_penalty
    return body


def _message(message: Message) -> dict[str, Any]:
    text = sanitised(message.text)
    if not message.pictures:
        return {"role": message.role, "content": text}
    shown = [{"type": "image_url", "image_url": {"url": _data_url(picture)}} for picture in message.pictures]
    return {"role": message.role, "content": [*shown, {"type": "text", "text": text}]}


def _data_url(picture: Picture) -> str:
    png = io.BytesIO()
    Image.fromarray(picture.pixels).save(png, "PNG", compress_level=1)
    return "data:image/png;base64," + base64.b64encode(png.getvalue()).decode()


def _without_pictures(messages: list[dict[str, Any]], prompt: Prompt) -> str:
    """Return the messages as they were sent, each picture by its digest: how the server renders them is not told."""
    digests = iter(picture.digest for picture in prompt.pictures)
    shown = [
        {
            "role": message["role"],
            "content": message["content"]
            if isinstance(message["content"], str)
            else [{"picture": next(digests)} if part["type"] == "image_url" else part for part in message["content"]],
        }
        for message in messages
    ]
    return json.dumps(shown, ensure_ascii=False)


def _settled(completion: Completion, told: _Told, choice: Choice) -> Completion:
    """Return the completion of a closed question.

    Raises
    ------
    EngineRejected
        The answer is none of the options.
    """
    told_by_tokens = heard(choice.options, told.alternatives)
    if told_by_tokens is not None:
        taken = told_by_tokens.taken
        ids = completion.token_ids[:1] if taken.spoken == told.first_token else ()
        return replace(
            completion,
            text=told_by_tokens.option,
            finish="stop",
            token_ids=ids,
            token_logprobs=(taken.logprob,),
            choices=told_by_tokens.choices,
            choice_mass=told_by_tokens.mass,
        )
    option = read(choice.options, told.text)
    if option is None:
        raise EngineRejected("the server's answer is none of the options", reason="constraint")
    return replace(completion, text=option, finish="stop", token_ids=(), token_logprobs=())


def _chunks(response: httpx.Response) -> Iterator[dict[str, Any]]:
    """Yield the server-sent events' objects up to the end mark."""
    for line in response.iter_lines():
        content = line.removeprefix("data:").strip()
        if not line.startswith("data:") or not content:
            continue
        if content == "[DONE]":
            return
        chunk = json.loads(content)
        if "error" in chunk:
            raise EngineUnavailable("the engine's server failed while it answered", reason="server_error", prompt=True)
        yield chunk


def _add(told: _Told, choice: dict[str, Any]) -> None:
    told.text += (choice.get("delta") or {}).get("content") or ""
    told.token_ids += choice.get("token_ids") or []
    tokens = (choice.get("logprobs") or {}).get("content") or []
    if tokens and not told.logprobs:
        told.first_token = _spoken(tokens[0])
        told.alternatives = [
            Alternative(_spoken(other), float(other["logprob"])) for other in tokens[0].get("top_logprobs") or ()
        ]
    told.logprobs += [float(token["logprob"]) for token in tokens]
    reason = choice.get("finish_reason")
    if reason is not None:
        told.finish = "length" if reason == "length" else "stop"


def _spoken(token: dict[str, Any]) -> bytes:
    told = token.get("bytes")
    return bytes(told) if told else str(token.get("token", "")).replace("▁", " ").encode()
