"""Where environments live: a small interface, the built-in directory, and programs of the operator."""
