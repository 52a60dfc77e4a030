"""The way to a connection through others: HTTP proxies on the way out, PROXY headers on the way in.

Law: not one byte behind a head is read with it; who may say whom a connection is for is a setting.
Way in: ``http_proxy`` (out), ``proxy_protocol`` (in).
"""
