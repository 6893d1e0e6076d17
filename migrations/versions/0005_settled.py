"""Settled studies: a row says that nothing is left to do, so that a worklist looks at the others alone.

One purpose. Must work while the previous release is still running. Forward only.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None
runs_from = "0001"  # the oldest revision whose programs still work on the schema this leaves behind

_UNSETTLED = "CASE WHEN settled_at = updated_at THEN 0 ELSE 1 END"


def upgrade() -> None:
    """Apply the change."""
    op.add_column("studies", sa.Column("settled_at", sa.DateTime(timezone=True), nullable=True))
    op.create_index(
        "ix_studies_unsettled",
        "studies",
        ["site_id", sa.text("lane DESC"), "created_at", "id"],
        postgresql_where=sa.text(f"({_UNSETTLED}) = 1"),
    )
    op.execute(
        f"CREATE STATISTICS st_studies_unsettled ON ({_UNSETTLED}) FROM studies"
    )  # else it is taken for half of them


def downgrade() -> None:
    """There is no way back: restore the backup that was taken before."""
    message = "countersign migrates forward only"
    raise RuntimeError(message)
