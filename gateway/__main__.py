"""`python -m gateway` is `countersign`: the form in which the launcher starts its parts."""

from gateway.cli import main

if __name__ == "__main__":
    main()
