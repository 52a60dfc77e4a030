"""CAMEO: a responder and a publisher relay in front of many ZeroMQ programs.

Way in: ``zmtp`` (the bytes), ``zmtp_peer`` (one connection), ``relays`` (both), ``cameo_system`` (all of it
from settings); docs/cameo.rst.
"""
