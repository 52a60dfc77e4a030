"""A receiver of webhooks over TLS: it checks each signature, keeps what came, and answers as it is told.

Rule of this file: as in services.py: plain blocking sockets and threads, nothing of the project.
"""

import base64
import hashlib
import hmac
import json
import ssl
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

from tests.support.throwaway_tls import Issued

__all__ = ["SECRET", "Receiver"]

SECRET = "whsec_" + base64.b64encode(bytes(range(32))).decode()


class Receiver:
    """``got`` has ids and bodies of what was signed rightly. ``status``: of the answers; 0: none at all."""

    def __init__(self, issued: Issued) -> None:
        self.got: list[tuple[str, dict[str, Any]]] = []
        self.wrong: list[str] = []
        self.status = 204
        self.tries = 0
        receiver = self

        class Asked(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                receiver.tries += 1
                said = f"{self.headers['webhook-id']}.{self.headers['webhook-timestamp']}.".encode() + body
                sign = hmac.new(base64.b64decode(SECRET[6:]), said, hashlib.sha256).digest()
                wanted = f"v1,{base64.b64encode(sign).decode()}"
                if self.path != "/hook" or not hmac.compare_digest(wanted, self.headers["webhook-signature"]):
                    receiver.wrong.append(self.path)
                elif receiver.status == 204:
                    receiver.got.append((self.headers["webhook-id"], json.loads(body)))
                if receiver.status:
                    self.send_response(receiver.status)
                    self.send_header("Location", "/elsewhere")
                    self.end_headers()
                else:
                    receiver.over.wait(60)

            do_GET = do_POST

            def log_message(self, *_: Any) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_: Any) -> None:
                pass

        self.over = threading.Event()
        self._server = Server(("127.0.0.1", 0), Asked)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(issued.certificate_file, issued.key_file)
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.url = f"https://127.0.0.1:{self._server.server_port}/hook"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self.over.set()
        self._server.shutdown()
        self._server.server_close()

    def events(self) -> list[str]:
        """What came, in order; what came again is left out."""
        return [row["type"] for row in dict(self.got).values()]
