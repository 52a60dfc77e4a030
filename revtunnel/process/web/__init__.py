"""Web listeners: who comes by HTTP, and where it goes.

Law: a request is bounded in size and time, its Host and Origin are judged, and then it belongs to others.
Way in: ``web_listener`` (who is let in), ``web_routes`` (what may be a WebSocket), ``web_pages`` (the rest);
``api``: operations by HTTP; ``page_files``: the page's own files.
"""
