"""What settings can hardly mean is said, and nothing is refused for it."""

from pathlib import Path

import pytest

from revtunnel.daemons.server_doubts import doubts
from revtunnel.daemons.server_options import ServerOptions
from tests.daemons.test_options import parse

EMO = "[listener machines]\naddress = 127.0.0.1:8080\nkind = emo\n"
BELOW = "[reservations] mill-1/emo: port 80: a machine of EMO registers 1025 or above"
NOBODY = "[listener machines] kind: no machine can register, SERIAL/emo = PORT in [reservations] wanted"
LEGACY = (
    "[listener old]\naddress = 127.0.0.1:2066\nkind = legacy\nserial = old-1\nmappings = 2300 -> it=a:23\n"
)

OIDC = "[oidc]\nissuer = https://login.example\nclient_id = x\npage = https://gate.example\n"
PAGELESS = "[oidc] issuer: nobody can log in so, no [web NAME] has page"
SHARED = (
    "[listener old]\naddress = 127.0.0.1:2066\nkind = legacy\nmappings = 0 -> it=a:23\n"
    "[legacy-device old-2]\nlistener = old\nsource = 10.0.0.7\n"
)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", []),
        ("[reservations]\nplc-7/any = 5000\n", []),
        (EMO + "[reservations]\nmill-1/emo = 5010\n", []),
        (EMO, [NOBODY]),
        (EMO + "[reservations]\nmill-1/emo = 80\n", [BELOW, NOBODY]),
        (EMO + "[reservations]\nmill-1/emo = 80\nmill-2/emo = 5010\n", [BELOW]),
        (
            EMO + "[reservations]\nmill-1/EMO = 5010\n",
            [NOBODY, "[reservations] mill-1/EMO: a machine of EMO is called mill-1/emo"],
        ),
        (
            EMO + "[reservations]\nmill-1/emo = 5010\nmill-1/http = 5011\n",
            ["[reservations] mill-1/http: no listener here brings a target of that name"],
        ),
        (LEGACY + "[reservations]\nold-1/it = 2300\n", []),
        (OIDC, [PAGELESS]),
        (OIDC + "[web w]\naddress = 127.0.0.1:2443\npage = no\n", [PAGELESS]),
        (OIDC + "[web w]\naddress = 127.0.0.1:2443\n", []),
        ("[oidc]\nbutton = Come in\n", ["[oidc] issuer: wanted, nothing else of [oidc] counts without it"]),
        (SHARED + "[reservations]\nold-2/it = 2300\n", []),
        (
            SHARED + "[reservations]\nold-3/it = 2300\n",
            ["[reservations] old-3/it: no listener here brings a target of that name"],
        ),
        (
            LEGACY + "[reservations]\nold-1/emo = 5010\n",
            ["[reservations] old-1/emo: no listener here brings a target of that name"],
        ),
    ],
)
def test_doubts(tmp_path: Path, text: str, found: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Each once, by the key where it stands; --check-config is ok all the same and prints them."""
    path = tmp_path / "r.ini"
    path.write_text(text)
    options = parse(ServerOptions, "--config", str(path))
    assert isinstance(options, ServerOptions)
    assert doubts(options.settings) == found
    with pytest.raises(SystemExit) as caught:
        parse(ServerOptions, "--check-config", "--config", str(path))
    lines = capsys.readouterr().out.splitlines()
    assert (caught.value.code, lines[0]) == (0, "ok")
    assert [line.removeprefix("warning: ") for line in lines if line.startswith("warning: ")] == found
