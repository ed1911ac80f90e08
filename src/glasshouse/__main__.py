"""`python -m glasshouse`: the command, where its script is not on the path."""

from glasshouse.cli import main

if __name__ == "__main__":
    main()
