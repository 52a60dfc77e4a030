"""Access to devices behind firewalls: a device's agent dials out, clients reach it as if it were local.

Floors, downwards only: ``twisted/plugins -> services -> net -> core -> wire``.
"""

__version__ = "0.1.0"
