"""What is known of a model folder without loading it."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from record.errors import EngineRejected
from worker.checkpoints import Layout, digest, file_digests, layout
from worker.phantom import MODEL_DIR


@pytest.mark.parametrize(
    ("model_type", "expected"),
    [
        ("llava", Layout.LLAVA),
        ("qwen2_5_vl", Layout.QWEN2_5_VL),
        ("llava_qwen2", Layout.HUATUO_ORIGINAL),
        ("llava_llama", Layout.HUATUO_ORIGINAL),
        ("gemma3", Layout.OTHER),
    ],
)
def test_the_layout_is_read_from_the_configuration(tmp_path: Path, model_type: str, expected: Layout) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": model_type}))
    assert layout(tmp_path) is expected


@pytest.mark.parametrize("content", [None, "{", "[]", "{}"])
def test_a_folder_without_a_readable_configuration_is_no_checkpoint(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "config.json").write_text(content)
    with pytest.raises(EngineRejected):
        layout(tmp_path)


def test_every_file_that_is_loaded_counts_and_no_other(tmp_path: Path) -> None:
    (tmp_path / "vit").mkdir()
    for name in ("config.json", "model.safetensors", "vit/model.bin", "README.md", "training.json"):
        (tmp_path / name).write_text(name)
    files = file_digests(tmp_path)
    assert list(files) == ["config.json", "model.safetensors", "vit/model.bin"]
    assert files["config.json"] == hashlib.sha256(b"config.json").hexdigest()


def test_one_changed_byte_changes_the_digest_and_the_order_of_files_does_not(tmp_path: Path) -> None:
    files = {"a.json": "1" * 64, "b.json": "2" * 64}
    assert digest(files) == digest(dict(reversed(files.items())))
    assert digest(files) != digest(files | {"b.json": "3" * 64})
    assert digest(files) != digest({"c.json": "1" * 64, "b.json": "2" * 64})


def test_the_committed_model_is_the_one_its_card_names() -> None:
    assert digest(file_digests(MODEL_DIR)) in (MODEL_DIR / "README.md").read_text()
