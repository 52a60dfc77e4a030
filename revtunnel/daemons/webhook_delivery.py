"""One try to deliver one message: signed, posted, and done with when the answer is 2xx.

Rule of this file: its headers are ours alone, so nothing that a device says stands in one. Which address is
dialled is judged when it is known, so no name leads where it must not. Imported only where there is a hook.

Source: Standard Webhooks 1.0; ours.
"""

import base64
import errno
import hashlib
import hmac
from collections.abc import Sequence
from typing import Any

from twisted.internet.defer import TimeoutError

from revtunnel.daemons.webhook_settings import WebhookSettings, read_secrets
from revtunnel.ground.networks import is_nobodys, led_to
from revtunnel.process.http_requests import RequestFailed, request
from revtunnel.sockets.ends import End
from revtunnel.sockets.opening import Reach, connect

__all__ = ["deliver", "reach_public", "signature"]


def signature(secrets: Sequence[bytes], id: str, moment: int, body: bytes) -> str:
    """The value of ``webhook-signature``: one of each secret."""
    said = f"{id}.{moment}.".encode() + body
    signs = (hmac.new(secret, said, hashlib.sha256).digest() for secret in secrets)
    return " ".join(f"v1,{base64.b64encode(sign).decode()}" for sign in signs)


async def deliver(reactor: Any, settings: WebhookSettings, id: str, body: bytes, now: float) -> str:
    """Why a message was not delivered; or nothing: it was."""
    assert settings.secret_file is not None
    try:
        secrets = read_secrets(settings.secret_file)
    except (OSError, ValueError) as error:
        return f"secret_file: {error}"
    headers = {
        "Content-Type": "application/json",
        "webhook-id": id,
        "webhook-timestamp": str(int(now)),
        "webhook-signature": signature(secrets, id, int(now), body),
    }
    reach: Reach = reach_private if settings.private else reach_public
    asked = reactor, "POST", settings.url, settings.wait, headers, body
    try:
        await request(*asked, authority=settings.authority, reach=reach)
    except RequestFailed as error:
        return str(error)
    except TimeoutError:
        return f"no answer in {settings.wait:g} s"
    return ""


async def reach_public(reactor: Any, host: str, port: int) -> End:
    """Connect, where everybody may."""
    address = led_to(host)
    if not address.is_global or is_nobodys(address):
        raise PermissionError(errno.EACCES, f"{host} is no public address, and private = no")
    return await connect(reactor, host, port)


async def reach_private(reactor: Any, host: str, port: int) -> End:
    """Connect, but not to what answers as a cloud's metadata."""
    if is_nobodys(led_to(host)):
        raise PermissionError(errno.EACCES, f"{host} is of the link, a group, or a cloud's metadata")
    return await connect(reactor, host, port)
