"""Which devices are here, what each may do, and which ports are promised to them.

Law: nothing that happens to one device costs more with more devices; its record has the last word.
Way in: ``fleet`` and ``devices`` (the one registry, whatever the wire), ``device_records`` and
``access_control`` (who is let in), ``leases`` (the port allocator), ``client_ports`` (the listening sockets
of leases).
"""
