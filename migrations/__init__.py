"""Alembic migrations: one purpose each, forward only, expand in one release and contract in the next."""
