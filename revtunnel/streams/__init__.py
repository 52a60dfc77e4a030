"""A client's stream, whatever carries it: frames, the table of a channel, credit, clients, the agent's dial.

For: what a channel is at either end, before anybody says over which connection it runs.
Law: a client is read only when its target has answered and credit is there; no buffer without a limit.
Way in: ``channel`` (the life of one), ``streams`` (a socket tied to one), ``clients`` (at the server),
``dialler`` (at the agent).
"""
