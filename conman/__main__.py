"""`python -m conman` is the `conman` command."""

from conman.cli import main

if __name__ == "__main__":
    main()
