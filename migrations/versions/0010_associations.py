"""Associations: each that ended, what it proposed, and why it ended so.

One purpose. Must work while the previous release is still running, which does not look at them. Forward only.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None
runs_from = "0001"  # the oldest revision whose programs still work on the schema this leaves behind


def upgrade() -> None:
    """Apply the change."""
    op.create_table(
        "proposals",
        sa.Column("sha256", sa.Text(), nullable=False),
        sa.Column("offers", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.PrimaryKeyConstraint("sha256", name=op.f("pk_proposals")),
    )
    op.create_table(
        "associations",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("site_id", sa.Uuid(), nullable=True),
        sa.Column("peer_id", sa.Uuid(), nullable=True),
        sa.Column("listener", sa.Text(), nullable=False),
        sa.Column("calling_ae_title", sa.Text(), nullable=False),
        sa.Column("called_ae_title", sa.Text(), nullable=False),
        sa.Column("peer_address", sa.Text(), nullable=False),
        sa.Column("is_secure", sa.Boolean(), nullable=False),
        sa.Column("proposal", sa.Text(), nullable=False),
        sa.Column("instances", sa.Integer(), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.Column("refusals", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("outcome", sa.Text(), nullable=False),
        sa.Column("reason_code", sa.Text(), nullable=False),
        sa.Column("began_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("gap_s", sa.Double(), nullable=True),
        sa.ForeignKeyConstraint(["proposal"], ["proposals.sha256"], name=op.f("fk_associations_proposal_proposals")),
        sa.ForeignKeyConstraint(["site_id"], ["sites.id"], name=op.f("fk_associations_site_id_sites")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_associations")),
    )
    op.create_index("ix_associations_ended", "associations", [sa.text("ended_at DESC")], unique=False)
    op.create_index("ix_associations_peer", "associations", ["peer_id", sa.text("ended_at DESC")], unique=False)
    op.create_index("ix_associations_proposal", "associations", ["proposal"], unique=False)
    op.create_index(
        "ix_associations_gaps",
        "associations",
        ["peer_id", "ended_at"],
        unique=False,
        postgresql_where=sa.text("gap_s >= 600"),
    )
    for table in ("proposals", "associations"):
        op.execute(f"REVOKE ALL ON {table} FROM PUBLIC")
        op.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON {table} TO countersign_app")


def downgrade() -> None:
    """There is no way back: restore the backup that was taken before."""
    message = "countersign migrates forward only"
    raise RuntimeError(message)
