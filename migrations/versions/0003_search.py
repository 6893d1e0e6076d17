"""Search: studies are found by the words of a patient's name, by Patient ID, accession number and study date.

One purpose. Must work while the previous release is still running. Forward only. Building the indexes holds up writes to
`studies` for about a second per 100,000 studies.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None
runs_from = "0001"  # the oldest revision whose programs still work on the schema this leaves behind

_NAME_WORDS = "to_tsvector('simple'::regconfig, translate(patient_name, '^=.,_/''-', '        '))"


def upgrade() -> None:
    """Apply the change."""
    for name, column in (("ix_studies_patient", "patient_id"), ("ix_studies_accession", "accession_number")):
        op.create_index(name, "studies", ["site_id", column], postgresql_ops={column: "text_pattern_ops"})
    op.create_index("ix_studies_date", "studies", ["site_id", "study_date"])
    op.create_index("ix_studies_name", "studies", [sa.text(f"({_NAME_WORDS})")], postgresql_using="gin")


def downgrade() -> None:
    """There is no way back: restore the backup that was taken before."""
    message = "countersign migrates forward only"
    raise RuntimeError(message)
