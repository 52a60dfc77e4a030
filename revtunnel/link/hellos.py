"""What agent and server say of themselves in HELLO: values to payload and back.

Rule of this file: an unknown entry is skipped, a number out of its range ends the link, a text is only shown.

Source: wire/link-extension.md "Negotiation"; docs/link-protocol.rst.
"""

from dataclasses import dataclass

from revtunnel.ground.errors import RemoteError
from revtunnel.ground.serials import parse_serial
from revtunnel.ground.targets import Offer
from revtunnel.streams.commands import (
    MAX_CREDIT,
    VERSION,
    Command,
    Feature,
    Tlv,
    decode_tlvs,
    encode_tlvs,
)
from revtunnel.streams.frames import MAX_PAYLOAD, encode_frame
from revtunnel.streams.offer_messages import encode_offer, read_offers

__all__ = [
    "NONCE_SIZE",
    "PROOF_ENTRY",
    "AgentHello",
    "ServerHello",
    "decode_agent_hello",
    "decode_server_hello",
    "encode_agent_hello",
    "encode_server_hello",
]

NONCE_SIZE = 32
PROOF_ENTRY = 2 + 32  # bytes at the end of the server's HELLO
MAX_INSTANCE = 16  # bytes
LEAST_DATA = 1024  # bytes of DATA in one frame that everybody has to take
_NONE, _KNOWN = Feature(0), sum(Feature)  # ``~`` would also have the bits between


@dataclass(frozen=True, slots=True)
class AgentHello:
    """What an agent says of itself."""

    serial: str
    nonce: bytes
    offers: tuple[Offer, ...]
    software: str = ""
    first_window: int = 65536
    largest_data: int = 65535
    features: Feature = _NONE
    instance: bytes = b""  # which run of it this is; b"": it does not say


@dataclass(frozen=True, slots=True)
class ServerHello:
    """What a server says when it accepts."""

    name: str = ""
    software: str = ""
    first_window: int = 65536
    largest_data: int = 65535
    keepalive: float = 25.0
    spread: float = 1.0
    features: Feature = _NONE
    proof: bytes = b""
    kernel_keepalive: float = 0.0  # with PROBES: seconds of silence that the kernel's probes grow to

    @property
    def origins(self) -> bool:
        """Whether ORIGIN is among its features."""
        return Feature.ORIGIN in self.features

    @property
    def sessions(self) -> bool:
        """Whether SESSIONS is."""
        return Feature.SESSIONS in self.features

    @property
    def services(self) -> bool:
        """Whether SERVICES is."""
        return Feature.SERVICES in self.features


def _number(single: dict[int, bytes], kind: Tlv, size: int, default: int, least: int, most: int) -> int:
    value = single.get(kind, default.to_bytes(size, "big"))
    number = int.from_bytes(value, "big")
    if len(value) != size or not least <= number <= most:
        shown = f"{number} in {len(value)} bytes" if len(value) <= 8 else f"a number of {len(value)} bytes"
        raise RemoteError(f"HELLO: {kind.name} is {shown}; {least} to {most} in {size} bytes is wanted")
    return number


def _flow(single: dict[int, bytes]) -> tuple[int, int]:
    """What the sender of a HELLO takes: its first window and its largest DATA, in bytes."""
    return (
        _number(single, Tlv.WINDOW, 4, 65536, 0, MAX_CREDIT),
        _number(single, Tlv.LARGEST_DATA, 4, MAX_PAYLOAD, LEAST_DATA, 2**32 - 1),
    )


def _features(single: dict[int, bytes]) -> Feature:
    """The bits that we know of those that the sender of a HELLO has."""
    return Feature(_number(single, Tlv.FEATURES, 4, 0, 0, 2**32 - 1) & _KNOWN)


def _said_features(features: Feature) -> list[tuple[int, bytes]]:
    return [(Tlv.FEATURES, features.to_bytes(4, "big"))] if features else []


def _line(value: bytes) -> str:
    text = value.decode("utf-8", "replace")
    return "".join(character if character.isprintable() else "?" for character in text)


def encode_agent_hello(hello: AgentHello) -> bytes:
    """HELLO of an agent, as a frame."""
    entries: list[tuple[int, bytes]] = [
        (Tlv.SERIAL, hello.serial.encode("ascii")),
        (Tlv.NONCE, hello.nonce),
        (Tlv.SOFTWARE, hello.software.encode()[:200]),
        (Tlv.WINDOW, hello.first_window.to_bytes(4, "big")),
        (Tlv.LARGEST_DATA, hello.largest_data.to_bytes(4, "big")),
        *_said_features(hello.features),
        *([(Tlv.INSTANCE, hello.instance)] if hello.instance else []),
        *((Tlv.OFFER, encode_offer(offer)) for offer in hello.offers),
    ]
    return encode_frame(Command.HELLO, VERSION, encode_tlvs(entries))


def decode_agent_hello(payload: bytes, most_offers: int) -> AgentHello:
    """Read an agent's HELLO.

    Raises:
        RemoteError: no serial, no nonce of 32 bytes, a bad offer, two offers of one name, or too many.
    """
    entries = list(decode_tlvs(payload))
    single = dict(entries)
    offers = read_offers((value for kind, value in entries if kind == Tlv.OFFER), most_offers, "HELLO")
    if len(single.get(Tlv.NONCE, b"")) != NONCE_SIZE:
        raise RemoteError("HELLO: a nonce of 32 bytes is wanted")
    instance = single.get(Tlv.INSTANCE, b"")
    if len(instance) > MAX_INSTANCE:
        raise RemoteError(f"HELLO: INSTANCE has {len(instance)} bytes; {MAX_INSTANCE} at most are wanted")
    return AgentHello(
        parse_serial(single.get(Tlv.SERIAL, b"").decode("ascii", "replace")),
        single[Tlv.NONCE],
        offers,
        _line(single.get(Tlv.SOFTWARE, b"")),
        *_flow(single),
        _features(single),
        instance,
    )


def encode_server_hello(hello: ServerHello) -> bytes:
    """HELLO of a server, as a frame."""
    entries: list[tuple[int, bytes]] = [
        (Tlv.NAME, hello.name.encode()[:200]),
        (Tlv.SOFTWARE, hello.software.encode()[:200]),
        (Tlv.WINDOW, hello.first_window.to_bytes(4, "big")),
        (Tlv.LARGEST_DATA, hello.largest_data.to_bytes(4, "big")),
        (Tlv.KEEPALIVE, min(65535, max(1, round(hello.keepalive))).to_bytes(2, "big")),
        (Tlv.SPREAD, min(65535, round(hello.spread * 10)).to_bytes(2, "big")),
        *_said_features(hello.features),
    ]
    if hello.kernel_keepalive:
        seconds = min(65535, max(1, round(hello.kernel_keepalive)))
        entries.append((Tlv.PROBES, seconds.to_bytes(2, "big")))
    if hello.proof:
        entries.append((Tlv.PROOF, hello.proof))
    return encode_frame(Command.HELLO, VERSION, encode_tlvs(entries))


def decode_server_hello(payload: bytes) -> ServerHello:
    """Read a server's HELLO.

    Raises:
        RemoteError: an entry is cut, or a number has the wrong size or is out of its range.
    """
    single = dict(decode_tlvs(payload))
    return ServerHello(
        _line(single.get(Tlv.NAME, b"")),
        _line(single.get(Tlv.SOFTWARE, b"")),
        *_flow(single),
        float(_number(single, Tlv.KEEPALIVE, 2, 25, 1, 65535)),
        _number(single, Tlv.SPREAD, 2, 10, 0, 65535) / 10,
        _features(single),
        single.get(Tlv.PROOF, b""),
        float(_number(single, Tlv.PROBES, 2, 0, 0, 65535)),
    )
