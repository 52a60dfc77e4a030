"""The systems beside rt1, a folder each: EMO, CCCP, CAMEO, remote sessions, ThingWorx.

Law: each is whole, from its bytes to its settings, and imports nothing of another.
"""
