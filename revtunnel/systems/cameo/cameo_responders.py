"""The responder relay: who is who, and which message goes where.

A message comes as ``"" to "" parts`` and leaves as ``"" from "" parts``; the same rule serves requests and
answers, and nothing is remembered between them. A client has an id that we gave it and that nobody can guess;
everybody else brought a name. A client reaches names only; a name reaches everybody.

Clients are not let in (they get no READY) before the CAMEO server is there: their first request waits in
their own socket, which forgets it when they do. When the server goes, REQ sockets that talk to it are parted
in order and come back to wait likewise.

The newest local holder of a name has it: an older connection may be half dead. It is left alone all the same,
for a living one that was cut would come back at once and be the newest; it has the name again when the newer
one is gone.

Source: wire/cameo.md sections 1 and 5; faults.md Z4.
"""

from collections import Counter
from collections.abc import Callable

from revtunnel.ground.errors import RemoteError
from revtunnel.ground.facts import Report
from revtunnel.systems.cameo.cameo_facts import (
    CameoServerGone,
    CameoServerSeen,
    NameReplaced,
    RequestRefused,
    Unroutable,
    shown,
)
from revtunnel.systems.cameo.cameo_peers import CameoPeer
from revtunnel.systems.cameo.cameo_requests import UNREADABLE, refusal, request_type, translated
from revtunnel.systems.cameo.zmtp_messages import ZmtpMessage, encode_more

__all__ = ["SERVER", "Responders"]

SERVER = b"0:0"  # the name of the CAMEO server
ID_BYTES = 16  # random ones in the id of a client
REMEMBERED = 1000  # names that are counted as unroutable, the rest in one number
_EMPTY = encode_more(b"")


class Responders:
    """The peers of the responder relay by identity, and what they are owed.

    Attributes:
        counts: messages that went nowhere, by reason.
        unroutable: the same by name, of those that nobody had.
    """

    def __init__(self, random_bytes: Callable[[int], bytes], report: Report) -> None:
        self.peers: dict[bytes, CameoPeer] = {}
        self.waiting: dict[CameoPeer, None] = {}  # for the server, to be let in
        self.counts: Counter[str] = Counter()
        self.unroutable: Counter[str] = Counter()
        self.server_since: float | None = None
        self._older: dict[bytes, list[CameoPeer]] = {}  # holders of a name that a newer one has
        self._told: set[bytes] = set()
        self._random_bytes = random_bytes
        self._report = report

    # -- coming and going

    def join(self, peer: CameoPeer, socket_type: str, identity: bytes, now: float) -> list[CameoPeer]:
        """A peer said READY: the peers to let in now.

        Raises:
            RemoteError: it may not have a name.
        """
        if identity and not peer.local:
            raise RemoteError(f"the name {shown(identity)[:80]!a} from another machine")
        peer.socket_type = socket_type
        peer.identity = identity or b"\0" + self._random_bytes(ID_BYTES)
        peer.envelope = _EMPTY + encode_more(peer.identity) + _EMPTY
        older = self.peers.get(peer.identity)
        if older is not None:
            self._older.setdefault(identity, []).append(older)
            self._report(NameReplaced("responder", shown(identity), peer.address, older.address))
        self.peers[peer.identity] = peer
        self._told.discard(peer.identity)
        if peer.identity == SERVER:
            return [peer, *self._server_came(peer, now)]
        if not identity and SERVER not in self.peers:
            self.waiting[peer] = None
            return []
        return [peer]

    def leave(self, peer: CameoPeer, now: float) -> list[CameoPeer]:
        """A peer is gone; the peers to be parted with for that."""
        self.waiting.pop(peer, None)
        older = self._older.get(peer.identity, [])
        if peer in older:
            older.remove(peer)
        elif self.peers.get(peer.identity) is not peer:
            return []
        elif older:
            self.peers[peer.identity] = older.pop()
        else:
            del self.peers[peer.identity]
        if not older:
            self._older.pop(peer.identity, None)
        return [] if peer.identity != SERVER or SERVER in self.peers else self._server_left(peer, now)

    def _server_left(self, peer: CameoPeer, now: float) -> list[CameoPeer]:
        since = now if self.server_since is None else self.server_since
        self._report(CameoServerGone(peer.address, round(now - since, 3)))
        self.server_since = None
        return [other for other in self.peers.values() if _talks_to_server_only(other)]

    def _server_came(self, peer: CameoPeer, now: float) -> list[CameoPeer]:
        waited, self.waiting = list(self.waiting), {}
        self.server_since = now
        self._report(CameoServerSeen(peer.address, len(waited)))
        return waited

    # -- messages

    def receive(self, peer: CameoPeer, message: ZmtpMessage) -> CameoPeer | None:
        """Pass a message on: the peer whose outbox has something for it, None when it went nowhere."""
        heads = message.heads
        if message.frames < 4:
            self.counts["too-short"] += 1
            return None
        to, rest = heads[1], message.rest
        named = peer.identity[0]
        if not named:
            if to == SERVER:
                peer.requests += 1
                if peer.rules.watches and not self._passes(peer, bytes(rest)):
                    return peer
            elif to[:1] == b"\0":
                self.counts["forged"] += 1
                return None
            else:
                peer.other_requests += 1
        destination = self.peers.get(to)
        if destination is None:
            self._nobody(peer, to)
            return None
        if named and destination.rules.advertise and peer.identity == SERVER:
            rest = translated(bytes(rest), destination.last_type, destination.rules.advertise)
        if destination.outbox.add(peer.envelope, rest):
            return destination
        self.counts["slow"] += 1
        return None

    def _passes(self, peer: CameoPeer, rest: bytes) -> bool:
        """Judge a request of an outside client to the server; what is refused may be answered at once."""
        kind = peer.last_type = request_type(rest)
        refused = peer.rules.refused_types
        if kind not in refused and not (refused and kind == UNREADABLE):
            return True
        self.counts["refused"] += 1
        answer = refusal(kind)
        self._report(RequestRefused(peer.address, peer.rules.name, kind, answer is not None))
        if answer is not None:
            peer.outbox.add(_EMPTY + encode_more(SERVER) + _EMPTY, answer)
        return False

    def _nobody(self, peer: CameoPeer, to: bytes) -> None:
        self.counts["unroutable"] += 1
        if to[:1] == b"\0":
            self.counts["client-gone"] += 1
            return
        name = shown(to)
        if name in self.unroutable or len(self.unroutable) < REMEMBERED:
            self.unroutable[name] += 1
        if to not in self._told and len(self._told) < REMEMBERED:
            self._told.add(to)
            self._report(Unroutable(peer.address, name))


def _talks_to_server_only(peer: CameoPeer) -> bool:
    return peer.socket_type == "REQ" and not peer.named and peer.ready and not peer.other_requests
