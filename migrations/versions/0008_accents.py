"""Accents: a patient's name is found with or without them.

One purpose. Must work while the previous release is still running, whose search goes without an index meanwhile. Forward
only. Building the index holds up writes to `studies` for some seconds per 100,000 studies.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None
runs_from = "0001"  # the oldest revision whose programs still work on the schema this leaves behind

_NAME_WORDS = (
    "to_tsvector('simple'::regconfig, translate(normalize(regexp_replace(normalize(patient_name, NFD),"
    " '[\u0300-\u036f]'::text, ''::text, 'g'::text), NFC), '^=.,_/''-øØłŁđĐ', '        oOlLdD'))"
)


def upgrade() -> None:
    """Apply the change."""
    op.drop_index("ix_studies_name", "studies")
    op.create_index("ix_studies_name", "studies", [sa.text(f"({_NAME_WORDS})")], postgresql_using="gin")


def downgrade() -> None:
    """There is no way back: restore the backup that was taken before."""
    message = "countersign migrates forward only"
    raise RuntimeError(message)
