"""Decisions: what a person decided about a conflict, and why, can be read again and taken back.

One purpose. Must work while the previous release is still running. Forward only.
"""

from __future__ import annotations

from importlib.resources import files

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None
runs_from = "0001"  # the oldest revision whose programs still work on the schema this leaves behind


def upgrade() -> None:
    """Apply the change."""
    op.create_table(
        "conflict_decisions",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("study_id", sa.Uuid(), nullable=False),
        sa.Column("instance_id", sa.Uuid(), nullable=False),
        sa.Column("instead_of_id", sa.Uuid(), nullable=True),
        sa.Column("conflict", sa.Text(), nullable=False),
        sa.Column("kept", sa.Boolean(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("reason_sha256", sa.Text(), nullable=False),
        sa.Column("decided_by_id", sa.Uuid(), nullable=False),
        sa.Column("decided_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("conflict IN ('bytes', 'identity')", name=op.f("ck_conflict_decisions_conflict")),
        sa.ForeignKeyConstraint(
            ["decided_by_id"], ["users.id"], name=op.f("fk_conflict_decisions_decided_by_id_users")
        ),
        sa.ForeignKeyConstraint(
            ["instance_id"], ["instances.id"], name=op.f("fk_conflict_decisions_instance_id_instances")
        ),
        sa.ForeignKeyConstraint(
            ["instead_of_id"], ["instances.id"], name=op.f("fk_conflict_decisions_instead_of_id_instances")
        ),
        sa.ForeignKeyConstraint(["study_id"], ["studies.id"], name=op.f("fk_conflict_decisions_study_id_studies")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_conflict_decisions")),
    )
    op.create_index(op.f("ix_conflict_decisions_study_id"), "conflict_decisions", ["study_id"], unique=False)
    guards = (files("migrations") / "sql" / "0007_guards.sql").read_text(encoding="utf-8")
    op.get_bind().connection.driver_connection.execute(guards)  # psycopg itself: several statements, no placeholders


def downgrade() -> None:
    """There is no way back: restore the backup that was taken before."""
    message = "countersign migrates forward only"
    raise RuntimeError(message)
