"""An agent of this project at a listener for EMO machines: rt1 on the same port, in place of its machine.

It says LISTEN first, which no EMO client can, and offers one target whose name is "emo-" and the port that
its command socket would have registered. From there on it is the device that the port is reserved for: the
same serial, the same target name, the same client port. What EMO's wire cannot carry (the terminator as
payload, a reset, a key of the device) it can; whom the listener lets in is the same.

Source: ours; wire/link-extension.md.
"""

from dataclasses import replace
from typing import Any

from revtunnel.ground.reasons import GoAway
from revtunnel.ground.targets import Offer, Target
from revtunnel.link.handshake import LinkDenied, ServerUp
from revtunnel.link.hellos import AgentHello
from revtunnel.link.mux import Happening, Offered
from revtunnel.link.server_link import ServerLink
from revtunnel.systems.emo.emo_choice import PREFIX
from revtunnel.systems.emo.emo_listener import EmoListener

__all__ = ["ModernLink", "deny_machine"]


def deny_machine(hello: AgentHello) -> None:
    """Deny such an agent at a listener of another kind, whose pool would give it any port.

    Raises:
        Denied: it is one.
    """
    if _registers(hello) is not None:
        raise _denied(hello.serial, "an agent with emo = yes needs a listener with kind = emo")


class ModernLink(ServerLink):
    """One connection of such an agent."""

    def __init__(self, serves: EmoListener, *args: Any) -> None:
        super().__init__(*args)
        self._serves = serves

    def _admit(self, up: ServerUp) -> None:
        assert up.hello is not None
        registers, in_vain = _registers(up.hello), self._serves.in_vain
        if registers is None:
            raise _denied(up.serial, f"this is a listener for EMO: one offer named {PREFIX}PORT wanted")
        port, target = registers
        try:
            super()._admit(self._placed(up, port, target))
        except LinkDenied as error:
            in_vain.add(port, self.source, str(error))
            raise
        in_vain.registered(port)

    def happened(self, happening: Happening) -> None:
        """Its one offer may lead elsewhere; what it is called here is said by its port."""
        if isinstance(happening, Offered) and len(happening.offers) == 1:
            (offer,) = happening.offers
            assert self.handshake is not None and self.handshake.hello is not None
            (mine,) = self.handshake.hello.offers
            happening = happening._replace(offers=(replace(mine, target=offer.target),))
        super().happened(happening)

    def _placed(self, up: ServerUp, port: int, target: Target) -> ServerUp:
        """The device that the port is reserved for.

        Raises:
            Denied: there is none, or the agent proved to be another one.
        """
        assert up.hello is not None
        reserved = self._serves.ports.get(port)
        if reserved is None:
            raise _denied(up.serial, f"port {port} is reserved for no device here")
        serial, name = reserved
        if up.authenticated and up.serial != serial:
            raise _denied(up.serial, f"port {port} is reserved for {serial}")
        hello = replace(up.hello, serial=serial, offers=(Offer(name, target),))
        return ServerUp(serial, hello, up.authenticated)


def _registers(hello: AgentHello) -> tuple[int, Target] | None:
    """The port it would register, and its target; None: it is no such agent."""
    if len(hello.offers) == 1:
        (offer,) = hello.offers
        digits = offer.name.removeprefix(PREFIX)
        if offer.name.startswith(PREFIX) and digits.isdigit() and digits.isascii() and len(digits) <= 6:
            return int(digits), offer.target
    return None


def _denied(serial: str, detail: str) -> LinkDenied:
    return LinkDenied(GoAway.DENIED, detail, serial, detail)
