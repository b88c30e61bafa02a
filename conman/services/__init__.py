"""Use cases that a request finishes by itself, and the facts that commands need from Git before they are sent."""
