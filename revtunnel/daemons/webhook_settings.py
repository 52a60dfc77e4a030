"""The settings of webhooks: sections [webhook NAME].

Rule of this file: it is imported by whoever reads settings, so it imports nothing of HTTP. What is sent where
has to be said: there is no hook without a URL, a secret and the names of facts.

Source: Standard Webhooks 1.0 "Signature scheme"; docs/webhooks.rst; ours.
"""

import base64
import re
from dataclasses import dataclass

from revtunnel.ground.declared import setting
from revtunnel.ground.kinds import PEM, count, many, nothing, path, seconds, text, yes_no
from revtunnel.ground.networks import is_loopback
from revtunnel.settings.inifile import Table
from revtunnel.sockets.tls.certificates import private_file_fault

__all__ = ["LEVELS", "WebhookSettings", "read_secrets", "webhook_settings"]

LEVELS = ("debug", "info", "warn", "error")
MOST = 16  # hooks
PREFIX = "whsec_"
_URL = text("URL", "https://..., or http://... on this machine", r"(https?://[!-~]{1,2000})?")
_SYSTEM = nothing("system", path(4096, "system"))


def read_fact(text: str) -> str:
    if not re.fullmatch(rf"[a-z0-9*-]{{1,64}}|@({'|'.join(LEVELS)})", text, re.ASCII):
        raise ValueError(f"{text[:80]!a}: a name such as link-up or link-*, or @warn wanted")
    return text


# fmt: off
@dataclass(frozen=True, kw_only=True)
class WebhookSettings:
    """One hook."""

    name: str
    url: str = setting(_URL, "", "where facts are posted; https, or http on this machine; empty: nowhere",
        live=True)
    secret_file: str | None = setting(PEM, "none", "file with the secret that signs, whsec_ and base64 of 24 "
        "to 64 bytes, closed to others; a second line is an older one that still counts", live=True)
    facts: tuple[str, ...] = setting(many("fact", read_fact, 0, 64), "", "which: by the name that log and "
        "watch have, * for any characters, such as link-down, device-*; @warn, @error: all that are so "
        "loud, or louder", live=True)
    private: bool = setting(yes_no(), "no", "whether it may be on this machine or in a private network; "
        "addresses of cloud metadata it never may", live=True)
    authority: str | None = setting(_SYSTEM, "system", "certificates of those who sign the receiver's; "
        "system: whom this machine trusts", live=True)
    wait: float = setting(seconds(1, 60), "10 s", "time that one try may take", live=True)
    patience: float = setting(seconds(0, 30 * 86400), "6 h", "age at which what cannot be delivered goes to "
        "the dead letters", live=True)
    queue: int = setting(count("messages", 1, 100_000), "1000", "that wait; what comes then is dropped, and "
        "counted", live=True)
    dead: int = setting(count("messages", 0, 10_000), "200", "dead letters that are kept; the oldest makes "
        "room", live=True)
# fmt: on


def webhook_settings(table: Table) -> tuple[WebhookSettings, ...]:
    """Every [webhook NAME] with a URL."""
    found = tuple(each for each in table.parts(WebhookSettings, None) if each.url)
    for hook in found:
        label = f"webhook {hook.name}"
        host = re.sub(r"^https?://([^/?#]*).*", r"\1", hook.url)
        if "@" in host or "#" in hook.url:
            table.complain(label, "url", "https://HOST[:PORT]/PATH wanted, without a user or a fragment")
        if hook.url.startswith("http:") and not is_loopback(host):
            table.complain(label, "url", f"{host[:80]} is another machine, https:// wanted")
        if not hook.facts and table.sound(label, "facts"):
            table.complain(label, "facts", "none are named; @warn, say, wanted")
        if hook.secret_file is None:
            table.complain(label, "secret_file", "none, a file wanted")
        elif fault := private_file_fault(hook.secret_file) or _fault(hook.secret_file):
            table.complain(label, "secret_file", f"{hook.secret_file}: {fault}", passes=True)
    if len(found) > MOST:
        table.complain(f"webhook {found[-1].name}", "url", f"{len(found)} hooks, {MOST} at most")
    return found


def _fault(path: str) -> str:
    try:
        read_secrets(path)
    except (OSError, ValueError) as error:
        return str(error)
    return ""


def read_secrets(path: str) -> list[bytes]:
    """The secrets in a file, the one that counts first.

    Raises:
        OSError: it cannot be read.
        ValueError: it has none, or something else; the text does not repeat it.
    """
    with open(path, encoding="ascii", errors="replace") as file:
        lines = file.read(4096).split()
    found = []
    for line in lines:
        try:
            found.append(base64.b64decode(line.removeprefix(PREFIX), validate=True))
        except ValueError:
            found.append(b"")
    wanted = all(line.startswith(PREFIX) for line in lines) and all(24 <= len(each) <= 64 for each in found)
    if not wanted or not 1 <= len(found) <= 2:
        raise ValueError(f"one or two lines wanted, each {PREFIX} and base64 of 24 to 64 bytes")
    return found
