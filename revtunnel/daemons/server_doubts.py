"""What the settings of a server say and can hardly mean: it runs with them, and says so.

Rule of this file: nothing here keeps a server from starting; each sentence names the key and what to write
instead. --check-config prints them, and the server logs them at its start.

Source: ours; wire/emo.md section 2.
"""

from collections.abc import Iterator

from revtunnel.daemons.legacy_devices import legacy_devices
from revtunnel.daemons.server_settings import Reservation, ServerSettings
from revtunnel.systems.emo.emo import LEAST_PORT
from revtunnel.systems.sessions.session_settings import WebSettings
from revtunnel.trust.oidc_settings import OidcSettings

__all__ = ["doubts"]

EMO = "emo"  # target of a machine of EMO


def doubts(settings: ServerSettings) -> list[str]:
    """Sentences, in the order of the file."""
    emo = [each.name for each in settings.listeners if each.kind == EMO]
    return [*_machines(settings, emo), *_names(settings, bool(emo)), *_logins(settings)]


def _machines(settings: ServerSettings, emo: list[str]) -> Iterator[str]:
    """Listeners for EMO where no machine can register."""
    if not emo:
        return
    machines = [each for each in settings.reservations if each.target == EMO]
    for each in machines:
        if each.port < LEAST_PORT:
            yield f"{_key(each)} port {each.port}: a machine of EMO registers {LEAST_PORT} or above"
    if all(each.port < LEAST_PORT for each in machines):
        for name in emo:
            wanted = "SERIAL/emo = PORT in [reservations] wanted"
            yield f"[listener {name}] kind: no machine can register, {wanted}"


def _names(settings: ServerSettings, emo: bool) -> Iterator[str]:
    """Reservations for targets that no listener can bring."""
    anything = bool(settings.web) or any(each.kind == "rt1" for each in settings.listeners)
    brought = {
        (device.serial, mapping.offer.name)
        for device in legacy_devices(settings)
        for mapping in device.mappings
    }
    for each in settings.reservations:
        if each.target != EMO and each.target.lower() == EMO:
            yield f"{_key(each)} a machine of EMO is called {each.serial}/emo"
        elif not anything and (each.serial, each.target) not in brought and not (emo and each.target == EMO):
            yield f"{_key(each)} no listener here brings a target of that name"


def _logins(settings: ServerSettings) -> Iterator[str]:
    """An identity provider, and no page where anybody could log in by it."""
    if not settings.oidc.issuer:
        if settings.oidc != OidcSettings():
            yield "[oidc] issuer: wanted, nothing else of [oidc] counts without it"
    elif not any(_has_page(each) for each in settings.web):
        yield "[oidc] issuer: nobody can log in so, no [web NAME] has page"


def _has_page(listener: WebSettings) -> bool:
    from revtunnel.daemons.web_system import parts_of  # a server without one imports nothing of it
    from revtunnel.process.web.web_rules import PAGE

    return PAGE in parts_of(listener)[0]


def _key(reservation: Reservation) -> str:
    return f"[reservations] {reservation.serial}/{reservation.target}:"
