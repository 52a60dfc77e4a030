"""Settings: how a file is read, with every fault that is in it, and what is printed of them.

Law: nothing is opened and nobody is asked here; a value that is returned is complete and right.
Way in: ``sections`` (which parts fill which section), ``inifile`` (reading), ``printing``; how a setting is
declared is said in ground/declared.py.
"""
