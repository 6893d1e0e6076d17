"""Peers: bound to a certificate, limited, asked for counts; and what each instance came by.

One purpose. Must work while the previous release is still running, which knows nothing of the new columns: a peer without an
address is none to it. Forward only.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None
runs_from = "0001"  # the oldest revision whose programs still work on the schema this leaves behind


def upgrade() -> None:
    """Apply the change."""
    op.add_column("peers", sa.Column("certificate_name", sa.Text(), server_default="", nullable=False))
    op.add_column("peers", sa.Column("port", sa.Integer(), nullable=True))
    op.add_column("peers", sa.Column("speaks_tls", sa.Boolean(), server_default=sa.text("false"), nullable=False))
    op.add_column("peers", sa.Column("max_associations", sa.Integer(), nullable=True))
    op.add_column("peers", sa.Column("asks_count", sa.Boolean(), server_default=sa.text("false"), nullable=False))
    op.add_column("studies", sa.Column("peer_id", sa.Uuid(), nullable=True))
    op.add_column("studies", sa.Column("count_asked_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("studies", sa.Column("announced_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("studies", sa.Column("expected_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("instances", sa.Column("association_id", sa.Uuid(), nullable=True))


def downgrade() -> None:
    """There is no way back: restore the backup that was taken before."""
    message = "countersign migrates forward only"
    raise RuntimeError(message)
