"""The admin socket: AMP over a UNIX socket, for revtunnelctl and other programs of the machine.

Law: an interface translates and decides nothing; each command is one call of the operator's plain methods.
Way in: ``operation_form`` (what can be said), ``admin`` (the server's end), ``admin_client`` (the caller's).
"""
