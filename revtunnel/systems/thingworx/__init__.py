"""ThingWorx: devices with PTC's Edge SDK, unchanged, as devices of this server.

Law: the bytes are alwayson_messages.py's; what a device is told and what its tunnels do is decided in memory.
Way in: edge_system.py, a route of a web listener.
"""
