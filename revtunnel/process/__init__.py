"""The manners of a process: start, signals, exit status, logs, the service manager, where facts go.

Law: knows no device and no setting's name; what is printed can never block or raise.
Way in: ``process`` (a daemon's life), ``logs`` (lines), ``reporting`` (facts), ``admin/`` (the admin socket).
"""
