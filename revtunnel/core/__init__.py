"""Floor 1: decisions. No reactor, no clock: ``now`` is an argument, in monotonic seconds."""
