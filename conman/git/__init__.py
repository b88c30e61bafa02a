"""The Git port and its adapters."""
