"""Runs Temporal workers: `python worker.py [--queues conman,conman-git,…]`; the same as `conman worker`."""

import sys

from conman.cli import main

if __name__ == "__main__":
    main(["worker", *sys.argv[1:]])
