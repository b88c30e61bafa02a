"""Conman lets teams change the configuration kept in their Git repositories safely."""

__version__ = "0.1.0"
