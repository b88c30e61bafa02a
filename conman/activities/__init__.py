"""Temporal activities: thin and idempotent; they call Git, the store, suites and targets."""
