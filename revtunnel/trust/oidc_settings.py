"""The settings of logins by OpenID Connect: section [oidc].

Rule of this file: it is imported by whoever reads settings, so it imports nothing of tokens. Without an
issuer there is none of it.

Source: OpenID Connect Core 1.0, Discovery 1.0; docs/people.rst; ours.
"""

import re
from dataclasses import dataclass
from importlib.util import find_spec

from revtunnel.ground.declared import setting
from revtunnel.ground.kinds import PEM, many, nothing, path, seconds, text
from revtunnel.ground.networks import is_loopback
from revtunnel.settings.inifile import Table
from revtunnel.sockets.tls.certificates import private_file_fault

__all__ = ["OidcSettings", "oidc_settings"]

ROLES = "reader", "admin"
_HTTPS = r"https://[A-Za-z0-9.\[\]:_-]{1,255}"
_ISSUER = text("URL", "empty, or https://HOST[:PORT][/PATH]", rf"({_HTTPS}(/[!$-;=@-~]{{0,1000}})?)?")
_PAGE = text("origin", "empty, or https://HOST[:PORT]", rf"({_HTTPS.replace('https', 'https?')})?")
_CLIENT = text("name", "up to 255 printable characters", r"[ -~]{0,255}")
_CLAIM = text("claim", "1 to 64 of A-Z a-z 0-9 . _ : / -", r"[A-Za-z0-9._:/-]{1,64}")
_SYSTEM = nothing("system", path(4096, "system"))


def read_role(text: str) -> tuple[str, str]:
    theirs, _, ours = (part.strip() for part in text.rpartition("="))
    if not theirs or not theirs.isprintable() or len(theirs) > 255 or ours not in ROLES:
        raise ValueError(f"{text[:80]!a}: THEIRS=reader or THEIRS=admin wanted")
    return theirs, ours


def read_group(text: str) -> tuple[str, str]:
    theirs, _, ours = (part.strip() for part in text.rpartition("="))
    if (
        not theirs
        or not theirs.isprintable()
        or not re.fullmatch(r"[a-z0-9][a-z0-9._-]{0,63}", ours, re.ASCII)
    ):
        raise ValueError(f"{text[:80]!a}: THEIRS=OURS wanted, OURS the name of a group here")
    return theirs, ours


# fmt: off
@dataclass(frozen=True, slots=True)
class OidcSettings:
    """Where the company's people are known, and what that makes of them here."""

    issuer: str = setting(_ISSUER, "", "the identity provider, as its discovery document spells it; "
        "empty: nobody logs in so", live=True)
    client_id: str = setting(_CLIENT, "", "of this server at the provider", live=True)
    client_secret_file: str | None = setting(PEM, "none", "file with the client secret, closed to others; "
        "none: a public client, PKCE alone", live=True)
    page: str = setting(_PAGE, "", "where browsers have the page, such as https://gate.example:2443; "
        "/oidc/back below it is the redirect URI to register there", live=True)
    button: str = setting(text("text", "1 to 64 printable characters", r"[ -~]{1,64}"),
        "Log in by the company", "what stands on the button of the page", live=True)
    authority: str | None = setting(_SYSTEM, "system", "certificates of those who sign the provider's; "
        "system: whom this machine trusts", live=True)
    scope: str = setting(text("words", "words with blanks between, openid among them",
        r"(?=.*\bopenid\b)[!#-~ ]{1,500}"), "openid email profile", "what is asked for; some providers want "
        "groups there", live=True)
    user_claim: str = setting(_CLAIM, "email", "claim that is the name of the user here, in small letters; "
        "email counts only with email_verified", live=True)
    groups_claim: str = setting(_CLAIM, "groups", "claim with the groups, or roles, of the provider",
        live=True)
    roles: tuple[tuple[str, str], ...] = setting(many("THEIRS=ROLE", read_role, 0, 256), "", "groups of the "
        "provider that make a reader or an admin, such as it-staff=admin; the most counts", live=True)
    groups: tuple[tuple[str, str], ...] = setting(many("THEIRS=OURS", read_group, 0, 1024), "", "groups of "
        "the provider that mean a group here, such as plant-3=plant3; its grants count", live=True)
    skew: float = setting(seconds(0, 600), "60 s", "by how much the clocks may differ", live=True)
    wait: float = setting(seconds(1, 60), "10 s", "time that the provider has for one answer", live=True)
# fmt: on

    @property
    def back(self) -> str:
        """The redirect URI."""
        return f"{self.page}/oidc/back"


def oidc_settings(table: Table) -> OidcSettings:
    """What [oidc] says."""
    found = table.part(OidcSettings)
    if not found.issuer:
        return found
    for key in ("client_id", "page"):
        if not getattr(found, key):
            table.complain("oidc", key, "wanted beside issuer")
    if found.page.startswith("http:") and not is_loopback(found.page.removeprefix("http://")):
        table.complain("oidc", "page", f"{found.page} is reached by other machines, https:// wanted")
    if found.client_secret_file and (fault := private_file_fault(found.client_secret_file)):
        table.complain("oidc", "client_secret_file", f"{found.client_secret_file}: {fault}", passes=True)
    if find_spec("jwt") is None:
        table.complain("oidc", "issuer", "package PyJWT is not here: pip install 'revtunnel[oidc]'")
    return found
