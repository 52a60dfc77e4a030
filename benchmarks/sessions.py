"""Measure a person's session by a local port beside ssh -L and WebSocket tunnels, as benchmarks.relay does.

The client is a tool of hers, the front is her program: ``revtunnel-connect``, or what a peer has in its
place. It counts as "server" in the figures of CPU and memory, together with the server in the middle; what
stands beside the device is "agent". `ssh -L` and the tunnels have no middle: their far end is at the device,
so they are one process shorter. `ssh -L to ssh -R` has the way of a session: both sides dial out.
"""

import sys

from benchmarks.ours import CHANNELS_PER_LINK, SESSIONS
from benchmarks.peers import LOCAL_PEERS
from benchmarks.relay import Bout, main

IDLE = 200  # connections of one session, of CHANNELS_PER_LINK
assert IDLE < CHANNELS_PER_LINK
ABOUT = "Measure a person's session by a local port beside ssh -L and WebSocket tunnels."

if __name__ == "__main__":
    sys.exit(main(bout=Bout("sessions", LOCAL_PEERS + SESSIONS, IDLE, ABOUT)))
