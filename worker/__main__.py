"""`python -P -m worker …`: what only the worker can do."""

from worker.cli import main

main()
