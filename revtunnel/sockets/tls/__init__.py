"""TLS on our own sockets: contexts from files, the handshake as a stage, who the other side is.

Law: every certificate is judged by ``peer_verification``, by what ``certificates`` says of it; what cannot be
judged is refused. Way in: ``tls_stages`` (handshakes), ``peer_verification`` (contexts).
"""
