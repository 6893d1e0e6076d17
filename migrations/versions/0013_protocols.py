"""Protocols: a site's own reading protocols, and which of the shipped ones it leaves out.

One purpose. Must work while the previous release is still running, which reads by the shipped ones alone. Forward only.
"""

from __future__ import annotations

from importlib.resources import files

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None
runs_from = "0001"  # the oldest revision whose programs still work on the schema this leaves behind


def upgrade() -> None:
    """Apply the change."""
    op.create_table(
        "site_protocols",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("site_id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("text", sa.Text(), nullable=True),
        sa.Column("added_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("retired_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("version >= 1", name=op.f("ck_site_protocols_version")),
        sa.CheckConstraint("digest ~ '^[0-9a-f]{64}$'", name=op.f("ck_site_protocols_digest")),
        sa.CheckConstraint("retired_at >= added_at", name=op.f("ck_site_protocols_retired")),
        sa.ForeignKeyConstraint(["site_id"], ["sites.id"], name=op.f("fk_site_protocols_site_id_sites")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_site_protocols")),
    )
    op.create_index(
        "uq_site_protocols_live",
        "site_protocols",
        ["site_id", "name"],
        unique=True,
        postgresql_where=sa.text("retired_at IS NULL"),
    )
    op.create_index(
        "uq_site_protocols_version",
        "site_protocols",
        ["site_id", "name", "version"],
        unique=True,
        postgresql_where=sa.text("text IS NOT NULL"),
    )
    op.create_index("ix_site_protocols_digest", "site_protocols", ["digest"], unique=False)
    guards = (files("migrations") / "sql" / "0013_guards.sql").read_text(encoding="utf-8")
    op.get_bind().connection.driver_connection.execute(guards)  # psycopg itself: several statements, no placeholders


def downgrade() -> None:
    """There is no way back: restore the backup that was taken before."""
    message = "countersign migrates forward only"
    raise RuntimeError(message)
