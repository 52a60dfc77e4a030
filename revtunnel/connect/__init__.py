"""The person's program ``revtunnel-connect``: local ports, or standard input and output, for services.

Law: nothing of the daemons; what one subcommand needs is imported for no other, and nothing for ``--help``.
Way in: ``main`` of connect.py; the command line is connect_line.py's, a session's life held_session.py's.
For programs: ``DeviceEndpoint`` of device_endpoint.py.
"""
