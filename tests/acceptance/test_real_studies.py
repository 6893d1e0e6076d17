"""Twenty real studies, sent by dcmtk: each ends drafted, abstained or skipped, with its reason.

The model behind the line is a small server that always gives the same words: what is tried here is that real pixels are
taken, decoded, rendered and listed, or refused for a stated reason. The phantom model would rightly abstain from all.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.bench import MODEL, small_server
from tests.line import Line, running

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(300)]
DATA = Path(__file__).parents[3] / "shared" / "data" / "dicom"

STUDIES = {
    # what is sent: what it must end as (state or reading state, reason code)
    "xray/RG1_J2KI.dcm": ("done", None),
    "xray/RG3_J2KR.dcm": ("done", None),
    "xray/nih_cxr.dcm": ("done", None),
    "xray/dx_image.dcm": ("done", None),
    "xray/xa_jpeg8bit.dcm": ("done", None),
    "xray/RF000000.dcm": ("done", None),
    "series/ct_ge_head_28": ("done", None),
    "series/mr_t1_20": ("done", None),
    "series/mr_ge_3": ("done", None),
    "us/examples_rgb_color.dcm": ("done", None),
    "ct_mr/CT_small.dcm": ("done", None),
    "ct_mr/MR_small.dcm": ("done", None),
    "ct_mr/emri_small.dcm": ("done", None),  # enhanced multi-frame
    "ct_mr/eCT_Supplemental.dcm": ("done", None),
    "us/examples_ybr_color.dcm": ("done", None),
    "us/color-px.dcm": ("done", None),
    "us/I_000007.dcm": ("done", None),
    "nm_sm_vl/sm_image.dcm": ("done", None),
    "nonimage/test-SR.dcm": ("skipped", "no_images"),
    "broken/JPEG2000-embedded-sequence-delimiter.dcm": ("abstained", "undecodable"),
}


@pytest.fixture(scope="module")
def line() -> Iterator[Line]:
    if not DATA.exists():
        pytest.skip("the folder of real DICOM files is not beside the project")
    with (
        small_server() as server,
        running(
            "--open-peers",
            "--stable-after",
            "2",
            "--quiet",
            "--model",
            MODEL,
            COUNTERSIGN_ENGINE_URL=server.url,
        ) as started,
    ):
        yield started


def test_every_real_study_ends_with_a_draft_or_a_reason(line: Line) -> None:
    import pydicom

    ends: dict[str, tuple[str, str | None]] = {}
    uids = {}
    for name in STUDIES:
        path = DATA / name
        files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
        header = pydicom.dcmread(files[0], specific_tags=["StudyInstanceUID"], stop_before_pixels=True, force=True)
        uids[name] = str(header.StudyInstanceUID)
        done = line.send_as_is(files)
        sent = (done.stdout + done.stderr).count("Received C-STORE Response (Success)")
        assert (done.returncode, sent) == (0, len(files)), (name, done.stdout[-800:], done.stderr[-800:])
    items = line.wait_until_ended(list(uids.values()), 150)
    for name, uid in uids.items():
        item = items[uid]
        ends[name] = (item["reading_state"] or item["state"], item["reason_code"])
    assert ends == STUDIES
