"""What settings make of a listener where it matters who is let in."""

from pathlib import Path

import pytest

from revtunnel.daemons.server_listeners import agent_listener
from revtunnel.daemons.server_reading import load_server
from revtunnel.settings.inifile import Surroundings

AROUND = Surroundings({}, root=False, home="/nowhere", host_name="gate", default_path="/nowhere/r.ini")
OPEN = "allow_without_keys = yes\nallow_plaintext = yes\n"


@pytest.mark.parametrize(
    ("address", "more", "doubt", "asks"),
    [
        ("127.0.0.1:0", "", False, False),
        ("127.0.0.1:0, [::1]:0", "", True, False),
        ("0.0.0.0:0", OPEN, False, False),
        ("0.0.0.0:0", OPEN, True, True),
        ("127.0.0.1:0, [2001:db8::1]:0", OPEN, True, True),
        ("0.0.0.0:0", "keys = required\nallow_plaintext = yes\n", False, True),
    ],
)
def test_n37_in_doubt_other_machines_need_a_key(
    tmp_path: Path, address: str, more: str, doubt: bool, asks: bool
) -> None:
    """While a damaged ledger stands aside nobody knows who is enrolled: all must prove a key."""
    path = tmp_path / "r.ini"
    path.write_text(f"[listener main]\naddress = {address}\n{more}")
    settings = load_server(str(path), None, AROUND)
    assert agent_listener(settings.listeners[0], settings, doubt=doubt).rules.keys_required is asks
