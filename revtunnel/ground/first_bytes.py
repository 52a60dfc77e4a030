r"""What somebody speaks who knocked at the wrong port, by his first bytes, and which setting answers it.

Rule of this file: nothing is decided here. A listener that refuses somebody adds the sentence to its own
words; what is not recognised gets none.

==================  ==========================================================================================
TLS                 ``16 03`` or ``15 03``: a record of handshake or alert (RFC 8446 section 5.1)
HTTP                a method and a blank, or ``HTTP/`` (RFC 9112 sections 3 and 4)
SSH                 ``SSH-`` (RFC 4253 section 4.2)
a PROXY header      ``PROXY`` and a blank, or ``0D 0A 0D 0A 00 0D 0A 51 55 49 54 0A`` (proxy_header.py)
rt1                 ``00 00 04 00`` LISTEN, ``00 10 1B 00`` ATTACH (streams/commands.py)
EMO                 a letter and six digits, ``PING`` or ``PONG`` (emo.py)
ZeroMQ              ``FF`` and seven times ``00`` (systems/cameo/zmtp.py)
a serial of CCCP    1 to 64 printable characters and ``0D`` (systems/cccp/registration.py)
a web page          ``<`` and ``!DOCTYPE``, ``html`` or ``?xml``, whatever the case
mail or FTP         ``220``, ``421`` or ``554`` and a blank or ``-`` (RFC 5321, RFC 959), ``+OK ``, ``* OK``
telnet              ``FF`` and ``FB`` to ``FE`` (RFC 854)
VNC                 ``RFB `` (RFC 6143 section 7.1.1)
MySQL               size in 3 bytes, the second and third ``00``, and ``00`` (its handshake, packet 0)
RDP                 ``03 00 00`` (RFC 1006)
Redis               ``-ERR`` or ``-NOA``
==================  ==========================================================================================

The first four bytes are enough for all but a serial of CCCP, because a link may have no more. An agent that
finds none of them at a server says what it begins with.

Source: the documents named; ours.
"""

import re
from enum import Enum

__all__ = ["Listens", "Spoken", "explained", "recognise"]


class Spoken(Enum):
    """What is recognised; the value is how it is called."""

    TLS = "TLS"
    HTTP = "HTTP"
    SSH = "SSH"
    PROXY = "a PROXY header"
    RT1 = "rt1"
    EMO = "EMO"
    ZEROMQ = "ZeroMQ"
    CCCP = "a serial of CCCP"
    PAGE = "a web page"
    MAIL = "mail or FTP"
    TELNET = "telnet"
    VNC = "VNC"
    MYSQL = "MySQL"
    RDP = "RDP"
    REDIS = "Redis"


class Listens(Enum):
    """Where it came; the value is what is spoken there, and needs no explanation."""

    LINK = (Spoken.RT1, "a plain listener of links")
    SERVER = (Spoken.RT1, "an agent, from its server")
    EMO = (Spoken.EMO, "a plain listener of EMO, or a machine")
    CCCP = (Spoken.CCCP, "a plain listener of CCCP's devices")
    CAMEO = (Spoken.ZEROMQ, "a port of CAMEO's relays")
    TLS = (Spoken.TLS, "any listener with TLS")
    PROXY = (Spoken.PROXY, "any listener with PROXY headers")


_LEAST = 4  # bytes that are compared at all
_TLS = (b"\x16\x03", b"\x15\x03")
_BEGINNINGS = {
    Spoken.HTTP: (
        *(b"GET ", b"HEAD ", b"POST ", b"PUT ", b"DELETE ", b"CONNECT ", b"OPTIONS ", b"TRACE ", b"PATCH "),
        *(b"PRI ", b"HTTP/"),
    ),
    Spoken.SSH: (b"SSH-",),
    Spoken.PROXY: (b"PROXY ", bytes.fromhex("0d0a0d0a000d0a515549540a")),
    Spoken.RT1: (bytes.fromhex("00000400"), bytes.fromhex("00101b00")),
    Spoken.EMO: (b"PING   \n", b"PONG   \n"),
    Spoken.ZEROMQ: (b"\xff" + bytes(7),),
    Spoken.MAIL: (*(b"%d%c" % (code, mark) for code in (220, 421, 554) for mark in b" -"), b"+OK ", b"* OK"),
    Spoken.TELNET: tuple(bytes((0xFF, verb)) for verb in range(0xFB, 0xFF)),
    Spoken.VNC: (b"RFB ",),
    Spoken.RDP: (b"\x03\0\0",),
    Spoken.REDIS: (b"-ERR", b"-NOA"),
}
_PATTERNS = {
    Spoken.PAGE: re.compile(rb"<(!do|htm|\?xm)", re.IGNORECASE),
    Spoken.MYSQL: re.compile(rb"[^\0]\0\0\0(\Z|\n)"),
}
_EMO = re.compile(rb"[CPSTF][0-9]{3}(\Z|[0-9]{3}(\Z|[0-9\n]))")
_CCCP = re.compile(rb"[!-~]{1,64}\r")

_LISTENER, _PROJECT = "see tls in [listener NAME]", "see tls in [cccp-project NAME]"
_PORTAL = "a portal on the way that wants a login, or see servers in [agent]"
_CLIENTS = "clients of devices dial the ports of revtunnelctl ports"
_BANNERS = (*(Spoken.PAGE, Spoken.MAIL, Spoken.TELNET, Spoken.VNC, Spoken.MYSQL, Spoken.RDP), Spoken.REDIS)
_ANSWERS = {
    Spoken.TLS: "nothing speaks it here",
    Spoken.HTTP: f"CCCP's API is at http in [cccp], and {_CLIENTS}",
    Spoken.SSH: _CLIENTS,
    Spoken.PROXY: "see proxy_protocol in [listener NAME] and [pool NAME]",
    Spoken.RT1: "agents dial address in [listener NAME]",
    Spoken.EMO: "machines need kind = emo in [listener NAME]",
    Spoken.ZEROMQ: "its peers dial proxy_ports in [cameo]",
    Spoken.CCCP: "devices dial address in [cccp-project NAME]",
    **dict.fromkeys(_BANNERS, _CLIENTS),
}
_ANSWERS_AT = {
    (Listens.LINK, Spoken.TLS): f"{_LISTENER}, or --plaintext of the agent",
    (Listens.EMO, Spoken.TLS): _LISTENER,
    (Listens.CCCP, Spoken.TLS): _PROJECT,
    (Listens.TLS, Spoken.RT1): "its agent comes without TLS, see tls in [agent]",
    (Listens.TLS, Spoken.EMO): _LISTENER,
    (Listens.TLS, Spoken.CCCP): _PROJECT,
    (Listens.SERVER, Spoken.TLS): "see tls in [agent]",
    (Listens.SERVER, Spoken.PAGE): _PORTAL,
    (Listens.SERVER, Spoken.HTTP): _PORTAL,
}
_ANSWERS_OF = {
    Listens.SERVER: "see servers in [agent]",
    Listens.PROXY: f"its sender puts no header before it, {_ANSWERS[Spoken.PROXY]}",
}


def recognise(first: bytes) -> Spoken | None:
    """What begins with these bytes, if that can be told."""
    if first[:2] in _TLS:
        return Spoken.TLS
    if len(first) >= _LEAST:
        for spoken, beginnings in _BEGINNINGS.items():
            if any(first[: len(each)] == each[: len(first)] for each in beginnings):
                return spoken
        for spoken, pattern in _PATTERNS.items():
            if pattern.match(first):
                return spoken
        if _EMO.match(first):
            return Spoken.EMO
    return Spoken.CCCP if _CCCP.match(first) else None


def explained(words: str, first: bytes, at: Listens) -> str:
    """``words`` of a refusal, and behind them what it looks like and which setting answers it, if known.

    ``first`` are the first bytes of the connection, as many as came.
    """
    spoken = recognise(first)
    if at is Listens.SERVER and first and spoken in (None, Spoken.CCCP):
        return f"{words}; it begins with {_shown(first)}: {_ANSWERS_OF[at]}"
    if spoken is None or spoken is at.value[0]:
        return words
    answer = _ANSWERS_AT.get((at, spoken)) or _ANSWERS_OF.get(at) or _ANSWERS[spoken]
    return f"{words}; this is {spoken.value}: {answer}"


def _shown(first: bytes) -> str:
    """A beginning, for people: as text where it is some."""
    text = first[:24].strip().decode("latin-1")
    return f"{text!a}" if text and text.isprintable() else first[:8].hex(" ")
