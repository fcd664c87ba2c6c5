"""`python -m gnnlab`."""

from gnnlab.cli import main

if __name__ == "__main__":
    main()
