"""Every rule of the display pipeline on a small file of its own, against a picture computed from the standard's formulas.

The golden pictures are committed and were made by `tests/unit/golden/make.py` from `reference.py`, which is plain Python and
knows nothing of our code. The files are written and read back through the decoding child's own operation.
"""

import io
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.unit.golden.cases import CASES, Case
from tests.unit.golden.colours import COLOURS
from tests.unit.golden.make import GOLDEN
from worker.decoding import answer, warm_up

ALL = (*CASES, *COLOURS)


@pytest.fixture(scope="module", autouse=True)
def _codecs():
    warm_up()


@pytest.fixture(scope="module")
def golden():
    with np.load(GOLDEN) as pictures:
        return dict(pictures)


def test_every_case_has_its_golden_picture_and_they_are_what_the_reference_says(golden):
    assert sorted(golden) == sorted(case.name for case in ALL)
    for case in ALL:
        assert np.array_equal(golden[case.name], np.array(case.picture, "u1")), case.name


@pytest.mark.parametrize("case", ALL, ids=lambda case: case.name)
def test_the_picture_is_what_the_standard_asks_for(case: Case, golden, tmp_path):
    path = tmp_path / "stored.dcm"
    case.ds.save_as(path, enforce_file_format=True)
    said, png = answer({"op": "render", "path": str(path), "frame": case.frame})
    assert "error" not in said, said
    found = np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))  # (rows, columns, 3)
    wanted = golden[case.name]
    wanted = wanted if wanted.ndim == 3 else np.repeat(wanted[:, :, None], 3, axis=2)  # (rows, columns, 3)
    assert found.shape == wanted.shape
    apart = np.abs(found.astype(int) - wanted.astype(int))
    assert apart.mean() <= case.lost, case.rule
    assert apart.max() <= (0 if case.lost == 0 else 4), case.rule


@pytest.mark.parametrize("case", [c for c in ALL if c.dcmtk is not None], ids=lambda case: case.name)
@pytest.mark.slow
def test_dcmtk_sees_the_golden_pictures_too(case: Case, golden, tmp_path):
    """A second opinion on the reference, for each rule that dcm2pnm knows: it truncates where we round."""
    outside = (p for p in os.environ["PATH"].split(os.pathsep) if Path(p) != Path(sys.executable).parent)
    syntax = str(case.ds.file_meta.TransferSyntaxUID)
    name = {"1.2.840.10008.1.2.4.80": "dcml2pnm"}.get(syntax, "dcmj2pnm" if ".1.2.4." in syntax else "dcm2pnm")
    tool = shutil.which(name, path=os.pathsep.join(outside))
    if tool is None:
        pytest.skip(f"dcmtk's {name} is not installed")
    path, target = tmp_path / "stored.dcm", tmp_path / "seen.pnm"
    case.ds.save_as(path, enforce_file_format=True)
    assert case.dcmtk is not None
    command = [tool, "-O", "+F", str(case.frame + 1), "+op", *case.dcmtk, str(path), str(target)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    apart = np.abs(np.asarray(Image.open(target)).astype(int) - golden[case.name].astype(int))
    assert apart.mean() <= 1
    assert apart.max() <= 4
