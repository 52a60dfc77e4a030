"""Access to devices behind firewalls: a device's agent dials out, clients reach it as if it were local.

Rooms, imports downwards only (tests/test_rooms.py); docs/architecture.rst says what each is for.
"""

__version__ = "0.1.0"
