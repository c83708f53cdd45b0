"""`python -m transfer.cli` is `transfer`."""

from transfer.cli import main

if __name__ == "__main__":
    main()
