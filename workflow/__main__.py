"""Lets `python -m workflow` stand for `ptychoflow`; the launcher starts the parts so."""

from workflow.cli import main

if __name__ == "__main__":
    main()
