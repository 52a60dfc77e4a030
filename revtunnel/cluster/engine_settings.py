"""The settings of the engine that nodes share, and what they mean together.

Rule of this file: it is imported by whoever reads settings, so it imports nothing of the engine;
``engine_way`` does, once one is set. A password is never in the settings, and plaintext between machines
has to be asked for by name.

Source: faults.md "Bind defaults", "TLS"; next/cluster.md section 1; ours.
"""

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from revtunnel.ground.declared import limit, setting
from revtunnel.ground.kinds import PEM, SettingKind, many, nothing, path, seconds, word, yes_no
from revtunnel.ground.networks import is_loopback
from revtunnel.ground.targets import parse_endpoint_or
from revtunnel.sockets.tls.certificates import FaultyFiles

if TYPE_CHECKING:
    from revtunnel.cluster.record_seal import SealedRecords
    from revtunnel.cluster.redis_engine import EngineWay

__all__ = ["EnginePlace", "EngineSettings", "engine_faults", "engine_way", "read_engine", "seal_of"]

PORT = 6379
_FORM = "redis://[USER@]HOST[:PORT][/DATABASE], rediss:// with TLS, or unix:PATH"
_URL = re.compile(r"(redis|rediss)://(?:([^@/]*)@)?([^@/]+)(?:/([0-9]{0,4}))?", re.ASCII)


class EnginePlace(NamedTuple):
    """Where an engine is; ``host`` may be ``unix:PATH``."""

    host: str
    port: int = PORT
    database: int = 0
    user: str = ""
    secure: bool = False


def read_engine(text: str) -> EnginePlace:
    """Read the place of an engine. ValueError: it is none."""
    if re.fullmatch(r"unix:/[\x21-\x7e]{1,100}", text):
        return EnginePlace(text, 0)
    found = _URL.fullmatch(text)
    if found is None:
        raise ValueError(f"{text[:80]!a}: {_FORM} wanted")
    scheme, user, place, database = found.groups()
    if ":" in (user or ""):
        raise ValueError("a password stands in it: engine_password_file is where it belongs")
    host, port = parse_endpoint_or(place, PORT)
    return EnginePlace(host, port, int(database or 0), user or "", scheme == "rediss")


_ENGINE = nothing("none", SettingKind("place", f"none, {_FORM}", read_engine))
_SENTINELS = many("HOST[:PORT]", lambda text: parse_endpoint_or(text, 26379), 0, 16)


# fmt: off
@dataclass(frozen=True, kw_only=True)
class EngineSettings:
    """Of the section [cluster]."""

    engine: EnginePlace | None = setting(_ENGINE, "none", "Redis 7 or Valkey, where nodes say which device "
        "is at which; with sentinels its host is the name of the master that they watch")
    engine_password_file: str | None = setting(PEM, "none", "file with its password, closed to others; read "
        "for each connection")
    engine_authority: str | None = setting(nothing("system", path(4096, "system")), "system", "certificates "
        "of those who sign the engine's, for rediss://; system: whom this machine trusts")
    engine_certificate: str | None = setting(PEM, "none", "what an engine is shown that asks for a "
        "certificate")
    engine_certificate_key: str | None = setting(PEM, "none", "file with its private key, closed to others")
    engine_sentinels: tuple[tuple[str, int], ...] = setting(_SENTINELS, "", "sentinels that know where the "
        "master is, asked in turn before each connection")
    secret_file: str | None = setting(PEM, "none", "file with a secret of 32 bytes or more, the same "
        "at all nodes, closed to others: with it they share people, grants, tokens, keys of devices and what "
        "is muted, sealed by it; none: revocations alone are shared, in plain")
    engine_plaintext: bool = setting(yes_no(), "no", "INSECURE: lets redis:// lead to another machine")
    without_engine: str = setting(word("alone", "wait"), "alone", "what a node does that starts while the "
        "engine is away. alone: it serves its own devices, and tells of them later; wait: it refuses agents, "
        "who go to another server, until it has joined")
    lease: float = limit(seconds(3, 120), 10, "a node that did not renew for so long is not believed to be "
        "there; renewed three times in it", live=False)
# fmt: on


def engine_faults(settings: EngineSettings) -> list[tuple[str, str]]:
    """What settings mean together that cannot be: keys and what is wrong with them. Files are looked at."""
    engine, found = settings.engine, list[tuple[str, str]]()
    files = ("engine_certificate", "engine_certificate_key")
    if settings.secret_file is not None:
        try:
            seal_of(settings, "")
        except FaultyFiles as error:
            found += error.faults
    if engine is None:
        named = ("engine_password_file", "engine_authority", *files, "engine_sentinels", "secret_file")
        return [(key, "of no use without engine") for key in named if getattr(settings, key)]
    local = engine.host.startswith("unix:") or is_loopback(engine.host)
    if settings.engine_sentinels:
        local = all(is_loopback(host) for host, _ in settings.engine_sentinels)
    if not (local or engine.secure or settings.engine_plaintext):
        text = f"{engine.host} is another machine, and plaintext can be read and altered on the way there"
        found.append(("engine", f"{text}, wanted: rediss://, or, if that is meant, engine_plaintext = yes"))
    if not engine.secure:
        only = ("engine_authority", *files)
        return found + [(key, "only with rediss://") for key in only if getattr(settings, key)]
    if (settings.engine_certificate is None) != (settings.engine_certificate_key is None):
        found.append(("engine_certificate", "certificate and key are both wanted, or neither"))
    return found


def seal_of(settings: EngineSettings, cluster: str) -> "SealedRecords | None":
    """What seals records of this cluster; None: nodes have no secret.

    Raises:
        FaultyFiles: the file cannot be used.
    """
    from revtunnel.cluster.record_seal import SealedRecords, read_secret

    file = settings.secret_file
    if file is None:
        return None
    try:
        return SealedRecords(read_secret(file), cluster)
    except ValueError as error:
        raise FaultyFiles([("secret_file", f"{file}: {error}")]) from None


def engine_way(settings: EngineSettings) -> "EngineWay":
    """How the engine is reached.

    Raises:
        FaultyFiles: with every fault of every file.
    """
    from revtunnel.cluster.redis_engine import EngineWay
    from revtunnel.sockets.tls.certificates import CertificateFiles, TlsSide, private_file_fault
    from revtunnel.sockets.tls.peer_verification import Identity, TlsRules

    engine, secret = settings.engine, settings.engine_password_file
    assert engine is not None
    fault = private_file_fault(secret) if secret is not None else None
    if fault is not None:
        raise FaultyFiles([("engine_password_file", f"{secret}: {fault}")])
    identity = None
    if engine.secure:
        shown = settings.engine_certificate, settings.engine_certificate_key
        files = CertificateFiles(TlsSide.GUEST, *shown, settings.engine_authority)
        identity = Identity(TlsRules(files, "1.2", alpn=b"redis"))

    def password() -> str:
        if secret is None:
            return ""
        with open(secret, encoding="utf-8") as file:
            return file.readline(4096).rstrip("\r\n")

    return EngineWay(
        engine.host,
        engine.port,
        engine.database,
        engine.user,
        password,
        identity,
        settings.engine_sentinels,
    )
