"""Hostile bytes for everything that reads a stranger's: ``python -m tests.fuzz --help``, docs/testing.rst."""
