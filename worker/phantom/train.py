"""Trains the small model on phantoms and saves it like any other checkpoint: ``python -m worker.phantom.train``.

The result has the -hf layout of HuatuoGPT-Vision and is opened by the engine that opens the real one. Does not know
engines: how good the model is, `worker.phantom.exam` measures after reloading it.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch

from worker.phantom.anatomy import ZONES, Phantom, report
from worker.phantom.lessons import Batch, batches, picture, pupils, questions, seen
from worker.phantom.network import END, PICTURE_TOKENS, PLACEHOLDER, network, processor, tokenizer

VIEWS = 2


@dataclass(frozen=True, slots=True)
class Plan:
    """How to train. Training ends after `steps` or `seconds`, whichever comes first.

    While `seconds` is far away, the same plan on the same machine gives the same weights, byte for byte.
    """

    seed: int = 0
    seconds: float = 3600.0
    steps: int = 1300
    batch: int = 32
    phantoms: int = 4000
    learning_rate: float = 1e-3
    threads: int = 2


def train(out: Path, plan: Plan) -> dict[str, Any]:
    """Train by this plan and save model, processor and ``training.json`` to `out`; return the latter's content."""
    torch.set_num_threads(plan.threads)
    torch.manual_seed(plan.seed)
    rng = np.random.default_rng(plan.seed)
    words = tokenizer([report(Phantom(zone, big, 0)) for zone in ZONES for big in (False, True)] + questions())
    proc, net = processor(words), network(words)
    phantoms = pupils(rng, plan.phantoms)
    pixels = _pixels(proc, phantoms)
    optimizer = torch.optim.AdamW(net.parameters(), lr=plan.learning_rate, weight_decay=0.01, betas=(0.9, 0.98))

    began = time.perf_counter()
    net.train()
    step = 0
    for step, batch in enumerate(batches(rng, phantoms, plan.batch)):
        spent = max(step / plan.steps, (time.perf_counter() - began) / plan.seconds)
        if spent >= 1:
            break
        warm = min(1.0, (step + 1) / 60)
        for group in optimizer.param_groups:
            group["lr"] = plan.learning_rate * warm * (0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * spent)))
        answer_loss = net(**_lesson(proc, batch), pixel_values=seen(pixels, batch, rng)).loss
        optimizer.zero_grad(set_to_none=True)
        answer_loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        if step % 100 == 0:
            click.echo(f"step {step:5d}  {time.perf_counter() - began:6.1f} s  loss {answer_loss.item():.4f}")

    net.eval()
    net.save_pretrained(out)
    proc.save_pretrained(out)
    facts = {
        "parameters": sum(p.numel() for p in net.parameters()),
        "steps": step,
        "train_s": round(time.perf_counter() - began, 1),
        "torch": torch.__version__,
        "plan": asdict(plan),
    }
    (out / "training.json").write_text(json.dumps(facts, indent=1) + "\n")
    return facts


def _pixels(proc: Any, phantoms: list[Phantom]) -> torch.Tensor:
    """Return every view of every phantom as the network takes it: (phantoms, views, 3, rows, columns)."""
    each = [
        proc.image_processor([picture(p, view) for view in range(VIEWS)], return_tensors="pt")["pixel_values"]
        for p in phantoms
    ]
    return torch.stack(each)


def _lesson(proc: Any, batch: Batch) -> dict[str, torch.Tensor]:
    """Return token ids, mask and labels; only the answer and its end are learned."""
    content = [{"type": "image"}] * batch.views + [{"type": "text", "text": batch.question}]
    conversation = [{"role": "user", "content": content}]
    prompt = proc.apply_chat_template(conversation, tokenize=False, add_generation_prompt=True)
    prompt = prompt.replace(PLACEHOLDER, PLACEHOLDER * PICTURE_TOKENS)
    texts = [prompt + answer + END for answer in batch.answers]
    encoded = proc.tokenizer(texts, padding=True, padding_side="right", return_tensors="pt")
    labels = encoded["input_ids"].masked_fill(encoded["attention_mask"] == 0, -100)  # (batch, tokens)
    labels[:, : len(proc.tokenizer(prompt).input_ids)] = -100
    return {"input_ids": encoded["input_ids"], "attention_mask": encoded["attention_mask"], "labels": labels}


def main(arguments: list[str] | None = None) -> int:
    """Run the training from the command line."""
    usual = Plan()
    parser = argparse.ArgumentParser(prog="python -m worker.phantom.train", description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=usual.seconds)
    parser.add_argument("--steps", type=int, default=usual.steps)
    parser.add_argument("--phantoms", type=int, default=usual.phantoms)
    parser.add_argument("--threads", type=int, default=usual.threads)
    parser.add_argument("--seed", type=int, default=usual.seed)
    given = parser.parse_args(arguments)
    plan = Plan(given.seed, given.seconds, given.steps, phantoms=given.phantoms, threads=given.threads)
    click.echo(json.dumps(train(given.out, plan)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
