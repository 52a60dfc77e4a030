"""TCXN CCCP: devices that say their serial, proxy sessions for them, the HTTP API.

Way in: ``registration`` (the bytes), ``registered_devices`` (who comes in), ``parking`` (who is here),
``proxies``, ``proxy`` and ``sessions`` (what runs and when it is over), ``http_door`` (the API),
``cccp_site`` (all of it from settings); docs/cccp.rst.
"""
