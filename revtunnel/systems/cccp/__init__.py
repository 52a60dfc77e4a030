"""TCXN CCCP: devices that say their serial, proxy sessions for them, the HTTP API.

Way in: ``registration`` (the bytes), ``registered_devices`` (who comes in), ``idle_devices`` (who is here),
``proxies``, ``proxy`` and ``proxy_sessions`` (what runs and when it is over), ``http_api`` (the API),
``cccp_system`` (all of it from settings); docs/cccp.rst.
"""
