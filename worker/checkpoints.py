"""What a model folder is: its layout, its files, and one digest for all of it.

Knows the layouts HuatuoGPT-Vision was published in, by their ``config.json``. Does not know how weights become a running
model, and loads none.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path

from record.errors import EngineRejected

_SUFFIXES = frozenset({".safetensors", ".json", ".jinja", ".model", ".txt", ".bin", ".tiktoken"})
_NOT_LOADED = frozenset({"training.json"})
_BLOCK_BYTES = 1 << 20


class Layout(StrEnum):
    """How a checkpoint is laid out."""

    LLAVA = "llava"
    QWEN2_5_VL = "qwen2_5_vl"
    HUATUO_ORIGINAL = "huatuo_original"
    OTHER = "other"


_BY_MODEL_TYPE = {
    "llava": Layout.LLAVA,
    "qwen2_5_vl": Layout.QWEN2_5_VL,
    "llava_qwen2": Layout.HUATUO_ORIGINAL,
    "llava_llama": Layout.HUATUO_ORIGINAL,
}


def layout(folder: Path) -> Layout:
    """Return the layout of a folder's checkpoint.

    Raises
    ------
    EngineRejected
        The folder holds no readable ``config.json``.
    """
    try:
        config = json.loads((folder / "config.json").read_text())
        model_type = config["model_type"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise EngineRejected("the model folder has no readable config.json", reason="no_config") from error
    return _BY_MODEL_TYPE.get(model_type, Layout.OTHER)


def file_digests(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of every weight, configuration, tokenizer, processor and template file, by relative name."""
    names = sorted(
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_file() and path.suffix in _SUFFIXES and path.name not in _NOT_LOADED
    )
    return {name: _sha256(folder / name) for name in names}


def digest(files: Mapping[str, str]) -> str:
    """Return one SHA-256 over the sorted list of file names and their digests."""
    lines = "".join(f"{sha256}  {name}\n" for name, sha256 in sorted(files.items()))
    return hashlib.sha256(lines.encode()).hexdigest()


def _sha256(path: Path) -> str:
    running = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(_BLOCK_BYTES):
            running.update(block)
    return running.hexdigest()
