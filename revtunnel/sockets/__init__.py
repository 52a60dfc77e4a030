"""One connected socket, and two of them joined.

For: reading, writing, half-close, reset, TLS, the lean relay, accepting and dialling, the turns.
Law: knows no frame, no device and no client; a cut stream never looks like a clean end here.
Way in: ``ends`` (one socket), ``relay`` (two of them), ``opening`` (the dial), ``listening``.
``tls/`` has contexts, handshakes and judgement of certificates; ``ways/`` what stands before the first
byte that is ours: HTTP CONNECT, PROXY headers.
"""
