"""The token by which a user is known: how it is written, and what is kept of it.

It is written once, for its user to keep, and holds 256 random bits. ::

    rtuser1_ base64url( 32 random bytes )

Rule of this file: the server keeps a hash and nothing else of it. A plain SHA-256 is enough: nobody guesses
256 bits, however fast it is.

Source: ours.
"""

import base64
import hashlib
from typing import NamedTuple

__all__ = [
    "BROWSER",
    "OWN",
    "READ",
    "SCOPES",
    "SECRET_SIZE",
    "BadToken",
    "Login",
    "UserToken",
    "mark_of",
    "parse_user_token",
    "write_user_token",
]

SECRET_SIZE = 32  # bytes
PREFIX = "rtuser1_"
# what a token is good for, where not for everything: a browser's cookie, looking only, what is his own only
SCOPES = BROWSER, READ, OWN = "browser", "read", "own"
_ID = 12  # hexadecimal digits of a hash that name a token to people


class UserToken(NamedTuple):
    """What is kept of a token."""

    mark: bytes  # SHA-256 that stands for the secret
    user: str
    note: str
    created: float
    until: float
    used: float | None = None  # last time
    scope: str = ""  # words of SCOPES with blanks between; none: all that its user may
    parent: str = ""  # id of the token that it was given for, and goes with

    @property
    def id(self) -> str:
        """What people call it by; it opens nothing."""
        return self.mark.hex()[:_ID]

    @property
    def is_browser(self) -> bool:
        """Whether it is the cookie of one."""
        return BROWSER in self.scope.split()

    def seen(self) -> float:
        """When it was used last, or made."""
        return self.created if self.used is None else max(self.created, self.used)


class Login(NamedTuple):
    """Who somebody is, as a good token said it; to be kept with whatever he began."""

    user: str
    token: str  # its id
    until: float
    scope: str = ""

    @property
    def is_browser(self) -> bool:
        """Whether it was a browser's cookie."""
        return BROWSER in self.scope.split()


class BadToken(Exception):
    """A token that does not count. For our own log: the other side gets one answer for all of them."""

    def __init__(self, word: str, text: str) -> None:
        super().__init__(text)
        self.word = word  # malformed, unknown, expired


def write_user_token(secret: bytes) -> str:
    """The written form: 51 ASCII characters without white space."""
    return PREFIX + base64.urlsafe_b64encode(secret).rstrip(b"=").decode("ascii")


def mark_of(secret: bytes) -> bytes:
    """What is kept of a secret."""
    return hashlib.sha256(b"revtunnel user token" + secret).digest()


def parse_user_token(text: str) -> bytes:
    """The secret in a written token; white space around it is ignored.

    Raises:
        BadToken: it is none. The text is not repeated: it may be a secret.
    """
    text = text.strip()
    secret = b""
    if text.startswith(PREFIX) and text.isascii():
        try:
            secret = base64.urlsafe_b64decode(text[len(PREFIX) :] + "=")
        except ValueError:
            secret = b""
    if len(secret) != SECRET_SIZE or write_user_token(secret) != text:  # the decoder skips characters
        raise BadToken("malformed", f"not a whole token: {len(text)} characters, {PREFIX} and 43 wanted")
    return secret
