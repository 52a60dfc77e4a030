"""Several nodes as one system: which device is at which node, and the links between nodes.

For: servers with ``[cluster]``; who has none imports nothing of this room.
Law: a node is the truth about its own links; what is known of others is soft, fenced, and may be wrong.
Way in: ``directory`` (the interface), ``node_records`` (values, fences), ``local_directory`` (one process).
"""
