"""Chest phantoms, and the small model that reads them.

A phantom is a drawing with a known answer, so a test can prove that pixels drove the words. Nothing here has a
clinical meaning. Does not know queues, studies in the record or the database; importing it imports no torch.
"""

from pathlib import Path

QUESTION = "Describe the chest radiograph. Give findings and impression."
"""What the protocol ``phantom-chest`` asks; the model was trained on this wording above all others."""

MODEL_DIR = Path(__file__).with_name("model")
"""The committed checkpoint that the model reference ``phantom`` stands for."""

__all__ = ["MODEL_DIR", "QUESTION"]
