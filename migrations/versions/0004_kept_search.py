"""Kept search: a session remembers what was last searched for, so that a browser's Back finds the list again.

One purpose. Must work while the previous release is still running. Forward only.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None
runs_from = "0001"  # the oldest revision whose programs still work on the schema this leaves behind


def upgrade() -> None:
    """Apply the change."""
    op.add_column("user_sessions", sa.Column("search", postgresql.JSONB(astext_type=sa.Text()), nullable=True))


def downgrade() -> None:
    """There is no way back: restore the backup that was taken before."""
    message = "countersign migrates forward only"
    raise RuntimeError(message)
