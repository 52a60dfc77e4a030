"""ThingWorx: devices with PTC's Edge SDK, unchanged, as devices of this server.

Law: the bytes are alwayson.py's; what a device is told and what its tunnels do is decided in memory.
Way in: edge_site.py, a route of a web listener.
"""
