"""The framed link between an agent and a server: rt1, and the legacy ReadyAgent wire.

For: handshake, keys, who sends next, heartbeat, back-off; both ends of the connection.
Law: one mode for a link, decided once; events change state and say what to do, actions never change state.
Way in: ``link`` (what both ends share), ``server_link``, ``agent_link``, ``uplink`` (kept up for years);
``mux``, ``rt1`` and ``legacy`` decide, docs/link-protocol.rst has the bytes.
"""
