"""Refused: what an association asked for, which instances it was refused, and whose certificate it showed; peers apart by certificate.

One purpose: to tell senders, and what became of what they asked for, apart. Must work while the previous release is still running, which
knows nothing of the new columns and enters peers as before. Forward only.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None
runs_from = "0001"  # the oldest revision whose programs still work on the schema this leaves behind


def upgrade() -> None:
    """Apply the change."""
    op.drop_constraint("uq_peers_ae_title_address", "peers", type_="unique")
    op.create_unique_constraint(
        op.f("uq_peers_ae_title_address_certificate_name"), "peers", ["ae_title", "address", "certificate_name"]
    )
    jsonb = postgresql.JSONB(astext_type=sa.Text())
    for name, default in (("requests", "{}"), ("refused", "[]"), ("certificate_names", "[]")):
        op.add_column("associations", sa.Column(name, jsonb, server_default=sa.text(f"'{default}'"), nullable=False))
    op.add_column("associations", sa.Column("untaken", sa.Integer(), server_default="0", nullable=False))
    op.create_index(
        "ix_associations_refused",
        "associations",
        ["refused"],
        unique=False,
        postgresql_using="gin",
        postgresql_ops={"refused": "jsonb_path_ops"},
        postgresql_where=sa.text("refused <> '[]'"),
    )
    for name in ("ae_title", "address"):
        op.add_column("commitments", sa.Column(name, sa.Text(), server_default="", nullable=False))
    op.create_index(
        "ix_commitments_dead",
        "commitments",
        ["received_at"],
        unique=False,
        postgresql_where=sa.text("state = 'dead'"),
    )


def downgrade() -> None:
    """There is no way back: restore the backup that was taken before."""
    message = "countersign migrates forward only"
    raise RuntimeError(message)
