"""Floor 2: Twisted Protocols and Factories; the reactor is passed in."""
