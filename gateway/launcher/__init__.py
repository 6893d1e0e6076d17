"""The embedded default: database and queue servers from wheels, one supervisor, readiness, a clean stop.

Knows processes, ports and folders. Does not know what the parts do: it starts commands and watches them. Production
sets `DATABASE_URL` and `REDIS_URL` and runs the same commands under its own supervisor.
"""
