"""What all tables share: naming, types, keys, times. Knows no table."""

from __future__ import annotations

import uuid
from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import DateTime, MetaData, Text, Uuid, func
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from record.ids import new_id


def one_of(column: str, values: type[StrEnum]) -> str:
    """The SQL check that a column holds one of an enum's values."""
    return f"{column} IN ({', '.join(repr(str(v)) for v in values)})"


class Table(DeclarativeBase):
    """Base of all tables."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {  # noqa: RUF012  # SQLAlchemy reads it from the class
        uuid.UUID: Uuid(),
        datetime: DateTime(timezone=True),
        str: Text(),
        dict[str, Any]: JSONB(),
        list[str]: ARRAY(Text()),
    }


def key() -> Mapped[uuid.UUID]:
    """A primary key of ours, made in Python."""
    return mapped_column(primary_key=True, default=new_id)


def now() -> Mapped[datetime]:
    """A time that the database sets."""
    return mapped_column(server_default=func.now())
