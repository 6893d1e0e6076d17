"""Proofs: a session counts the wrong passwords that are given in it, apart from those at the public door.

One purpose. Must work while the previous release is still running. Forward only.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None
runs_from = "0001"  # the oldest revision whose programs still work on the schema this leaves behind


def upgrade() -> None:
    """Apply the change."""
    op.add_column("user_sessions", sa.Column("failed_proofs", sa.Integer(), server_default="0", nullable=False))


def downgrade() -> None:
    """There is no way back: restore the backup that was taken before."""
    message = "countersign migrates forward only"
    raise RuntimeError(message)
