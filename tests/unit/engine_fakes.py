"""What the engine tests share: a reader of phantoms without a model, and a small OpenAI-compatible server around it.

Knows the wire as a server sees it. Does not know our engines.
"""

from __future__ import annotations

import base64
import io
import json
import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

import numpy as np
from PIL import Image


def look(pictures: list[np.ndarray]) -> str:
    """Say where a phantom's upper zones differ; a reader that knows no more than that."""
    if not pictures:
        return "Findings: No picture was shown."
    difference = _left_over_right(pictures[0])
    if abs(difference) < 8:
        return "Findings: The lungs are clear. The heart size is normal.\nImpression: No acute abnormality."
    zone = f"{'left' if difference > 0 else 'right'} upper zone"
    return f"Findings: There is an opacity in the {zone}.\nImpression: Opacity in the {zone}."


def suspects(pictures: list[np.ndarray]) -> float:
    """Say how probable an opacity in the left upper zone is."""
    return 1 / (1 + math.exp(-_left_over_right(pictures[0]) / 8)) if pictures else 0.5


def _left_over_right(picture: np.ndarray) -> float:
    grey = picture[:, :, 0].astype(float)
    rows, columns = grey.shape
    band = grey[int(rows * 0.2) : int(rows * 0.4)]  # (rows / 5, columns)
    right = band[:, int(columns * 0.2) : int(columns * 0.4)].mean()
    left = band[:, int(columns * 0.6) : int(columns * 0.8)].mean()
    return float(left - right)


def yes_or_no(probability: float) -> dict[str, float]:
    """Begin an answer as models do, in several spellings and never quite to the point."""
    no = 1 - probability
    return {"Yes": 0.6 * probability, " yes": 0.3 * probability, "No": 0.8 * no, "NO": 0.1 * no, "The": 0.06, " ": 0.04}


@dataclass
class ChatServer:
    """Serves `model`; `status` and `events` bend what it answers.

    Asked for alternatives, it answers a closed question: with the likeliest beginning, and how that goes `on`.
    """

    model: str = "small"
    word_s: float = 0.0
    latency_s: float = 0.0
    status: int = 200
    events: Callable[[list[str]], list[str]] = lambda lines: lines
    beginnings: Callable[[float], dict[str, float]] = yes_or_no
    on: str = "."
    requests: list[dict[str, Any]] = field(default_factory=list)
    pictures: list[np.ndarray] = field(default_factory=list)
    hung_up: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> Self:
        told = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_: object) -> None: ...

            def do_GET(self) -> None:
                told._models(self)

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                told.requests.append(body)
                try:
                    told._answer(self, body)
                except OSError:
                    told.hung_up.set()

        class Server(ThreadingHTTPServer):
            request_queue_size = 64
            daemon_threads = True

            def handle_error(self, *_: object) -> None:
                told.hung_up.set()  # whoever asked has gone

        self._server = Server(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def _models(self, handler: BaseHTTPRequestHandler) -> None:
        content = json.dumps({"data": [{"id": self.model, "object": "model", "owned_by": "tests"}]}).encode()
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(content)))
        handler.end_headers()
        handler.wfile.write(content)

    def _answer(self, handler: BaseHTTPRequestHandler, body: dict[str, Any]) -> None:
        handler.send_response(self.status)
        handler.end_headers()
        if self.status != 200:
            return
        time.sleep(self.latency_s)
        pictures = [_decoded(part["image_url"]["url"]) for m in body["messages"] if isinstance(m["content"], list)
                    for part in m["content"] if part["type"] == "image_url"]  # fmt: skip
        self.pictures += pictures
        words = look(pictures).split(" ")
        beginnings = self.beginnings(suspects(pictures)) if body.get("top_logprobs") else {}
        if beginnings:
            words = [max(beginnings, key=lambda one: beginnings[one]) + self.on]
        kept = words[: body["max_tokens"]]
        lines = []
        for index in range(body["n"]):
            for number, word in enumerate(kept):
                delta = {"content": word if number == 0 else " " + word}
                logprobs = {"content": [{"token": word, "logprob": -0.5}]}
                if beginnings:
                    likeliest = sorted(beginnings, key=lambda one: -beginnings[one])[: body["top_logprobs"]]
                    told = [{"token": one, "logprob": math.log(beginnings[one])} for one in likeliest]
                    logprobs = {"content": [told[0] | {"top_logprobs": told}, {"token": self.on, "logprob": -0.1}]}
                lines.append(json.dumps({"choices": [{"index": index, "delta": delta, "logprobs": logprobs}]}))
            reason = "stop" if len(kept) == len(words) else "length"
            lines.append(json.dumps({"choices": [{"index": index, "delta": {}, "finish_reason": reason}]}))
        lines += [json.dumps({"choices": [], "usage": {"prompt_tokens": 7}}), "[DONE]"]
        for line in self.events(lines):
            handler.wfile.write(f"data: {line}\n\n".encode())
            handler.wfile.flush()
            time.sleep(self.word_s)


def _decoded(url: str) -> np.ndarray:
    png = base64.b64decode(url.removeprefix("data:image/png;base64,"))
    return np.asarray(Image.open(io.BytesIO(png)))
