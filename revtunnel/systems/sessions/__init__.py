"""Remote sessions: a named person reaches services of a device for a while, through WebSockets.

Way in: ``session_life`` (what one session may do, and when it is over), ``nonces`` (who may come in),
``remote_sessions`` (all sessions of a server), ``localproxy`` (the bytes of another vendor).
"""
