"""The MTConnect EMO proxy, both ends: a command socket, and data sockets opened on demand.

Way in: ``emo`` (the bytes), ``emo_server`` and ``emo_agent`` (the ends), ``emo_modern`` (rt1 on the same
port); docs/emo.rst.
"""
