"""Settings become objects, objects become a service tree: server, agent, cccp, cameo.

For: the command lines, the settings of server and agent, the operator, the switchboard.
Law: here parts are put together; a decision that needs a test of its own belongs below.
Way in: ``run`` (how a daemon starts), ``server``, ``agent``, ``cccp``, ``cameo``.
"""
