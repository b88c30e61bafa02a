"""Gitaly's protocol: `gitaly.proto`, and the messages, stubs and service bases that `make proto` generates from it."""
