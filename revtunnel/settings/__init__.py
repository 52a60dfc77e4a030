"""Settings: kinds of values, how a file is read, and every fault that is in it, all at once.

Law: nothing is opened and nobody is asked here; a value that is returned is complete and right.
Way in: ``values`` (kinds), ``inifile`` (reading), ``sections`` (what daemons share).
"""
