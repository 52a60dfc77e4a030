"""Floor 0: bytes to values and back. Imports the standard library only."""
