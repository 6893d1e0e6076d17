"""Write pictures.npz anew, from the reference alone: `python -m tests.unit.golden.make` at the project's root.

Only for a new case: a golden picture that changes is another reading of the standard, and says so in its commit.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tests.unit.golden.cases import CASES
from tests.unit.golden.colours import COLOURS

GOLDEN = Path(__file__).with_name("pictures.npz")


def main() -> None:
    """Compute every picture."""
    pictures = {case.name: np.array(case.picture, "u1") for case in (*CASES, *COLOURS)}  # (rows, columns[, 3]) each
    np.savez_compressed(GOLDEN, **pictures)


if __name__ == "__main__":
    main()
