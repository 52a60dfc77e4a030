"""Remote sessions: a named person reaches services of a device for a while, through WebSockets.

Way in: ``session_life`` (what one session may do, and when it is over), ``nonces`` (who may come in),
``remote_sessions`` (all of a server), ``live_sessions`` (with rights, connections and clocks), the endpoints
``control_route`` and ``session_routes``; ``localproxy`` (AWS's bytes), ``localproxy_route``.
"""
