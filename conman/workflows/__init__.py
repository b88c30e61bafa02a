"""Temporal workflows: deterministic, they import the domain only and reach the world through activities by name."""
