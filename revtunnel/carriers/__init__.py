"""Carriers beside the link: data sockets, a connection of its own for each client, brought for a ticket.

Law: a ticket is good once; what waits is bounded; where no socket comes the link carries the client.
Way in: ``data_sockets`` (all of a server), ``data_pool`` (those of one link), ``data_stream`` (one client),
``agent_data`` (the agent's side).
"""
