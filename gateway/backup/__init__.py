"""Backups of a run: how they lie on a disk, how one is taken, and how it is put back.

Knows what a run keeps beside its database. Does not know who starts the servers.
"""
