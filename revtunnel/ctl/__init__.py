"""The command revtunnelctl: looks at a running daemon and changes it, through its admin socket.

Law: no decision is made here; what a command prints is made from the answer and nothing else.
Way in: ``ctl`` (the command line), ``ctl_actions`` (what is asked and printed).
"""
