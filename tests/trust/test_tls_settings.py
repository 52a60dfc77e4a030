"""Settings of TLS: what is refused before any socket opens, and when an agent speaks plaintext."""

from dataclasses import replace
from pathlib import Path

import pytest

from revtunnel.daemons.agent_reading import load_agent
from revtunnel.daemons.agent_settings import AgentSettings
from revtunnel.daemons.server_reading import load_server
from revtunnel.ground.errors import SettingsError
from revtunnel.ground.networks import is_loopback
from revtunnel.ground.server_places import ServerPlace
from revtunnel.trust.tls_settings import speaks_tls
from revtunnel.trust.tls_settings_checks import agent_rules, listener_rules
from tests.daemons.test_settings import HERE, errors, server
from tests.support.throwaway_tls import Issuer

WIDE = "[listener main]\naddress = 0.0.0.0:2065\n"


def of_server(issuer: Issuer) -> str:
    """A listener with everything that TLS needs."""
    issued = issuer.server("gate.example")
    return (
        f"[listener main]\ntls = yes\ncertificate = {issued.certificate_file}\n"
        f"certificate_key = {issued.key_file}\nauthority = {issuer.file}\n"
    )


def agent(tmp_path: Path, text: str, servers: str = "gate.example:2065") -> AgentSettings:
    """The settings of an agent."""
    path = tmp_path / "a.ini"
    path.write_text(f"[agent]\nservers = {servers}\nlocal = 10.0.0.5:23\n{text}\n")
    return load_agent(str(path), None, HERE)


def agent_errors(tmp_path: Path, text: str, servers: str = "gate.example:2065") -> list[str]:
    """What is wrong with them."""
    with pytest.raises(SettingsError) as caught:
        agent(tmp_path, text, servers)
    return [line.partition("[agent] ")[2] for line in caught.value.errors]


# ---- listeners


def test_plaintext_between_machines_has_to_be_asked_for(tmp_path: Path) -> None:
    """A listener that other machines reach needs TLS, or the insecure setting by its name."""
    (line,) = errors(tmp_path, f"{WIDE}keys = required\n")
    assert "0.0.0.0 is reached by other machines, and plaintext can be read" in line
    assert line.endswith("wanted: tls = yes, or, if that is meant, allow_plaintext = yes")
    assert server(tmp_path, f"{WIDE}keys = required\nallow_plaintext = yes\n").listeners[0].allow_plaintext


@pytest.mark.parametrize(
    ("text", "good"),
    [
        ("", True),
        ("device_certificates = optional\n", False),
        ("device_certificates = no\n", False),
        ("device_certificates = no\nkeys = required\n", True),
        ("device_certificates = optional\nkeys = required\n", True),
        ("device_certificates = optional\nallow_without_keys = yes\n", True),
    ],
)
def test_open_listener_with_tls_knows_its_devices(tmp_path: Path, text: str, good: bool) -> None:
    """Certificates or keys: one of them is required, or the insecure setting stands there."""
    whole = f"{of_server(Issuer(tmp_path))}address = 0.0.0.0:2065\n{text}"
    if good:
        assert server(tmp_path, whole).listeners[0].tls
    else:
        (line,) = errors(tmp_path, whole)
        assert "lets devices without keys in from other machines" in line


def test_what_a_tls_listener_needs(tmp_path: Path) -> None:
    """Certificate, key and authority; without device certificates no authority."""
    lines = errors(tmp_path, "[listener main]\ntls = yes\n")
    assert [line.split("[listener main] ")[1].split(":")[0] for line in lines] == [
        "certificate",
        "certificate_key",
        "authority",
    ]
    text = of_server(Issuer(tmp_path)).replace("authority =", "device_certificates = no\n#")
    rules = listener_rules(server(tmp_path, text).listeners[0])
    assert rules is not None and (rules.peer, rules.files.authority) == ("no", None)


def test_files_without_tls_are_an_error(tmp_path: Path) -> None:
    """Who names a certificate expects it to be used."""
    lines = errors(tmp_path, of_server(Issuer(tmp_path)).replace("tls = yes", ""))
    assert [line.split("[listener main] ")[1] for line in lines] == [
        f"{key}: only with tls = yes" for key in ("certificate", "certificate_key", "authority")
    ]


def test_wrong_files_are_named_with_line_file_and_reason(tmp_path: Path) -> None:
    """--check-config and a start say the same: the setting, its line, the file, what is wrong with it."""
    issuer = Issuer(tmp_path)
    text = of_server(issuer)
    Path(issuer.directory / "server.key").chmod(0o644)
    lines = errors(tmp_path, text.replace("test-authority.pem", "none.pem"))
    assert lines == [
        "r.ini:4: [listener main] certificate_key: server.key: mode 0644 opens it to everybody, 0600 wanted",
        "r.ini:5: [listener main] authority: none.pem: No such file or directory, a file that can be read "
        "wanted",
    ]


def test_secrets_are_files(tmp_path: Path) -> None:
    """A key in the settings themselves is refused without repeating it."""
    (line,) = errors(tmp_path, "[listener main]\nkey = -----BEGIN PRIVATE KEY-----\n")
    assert "no secrets in this file" in line and "BEGIN" not in line


# ---- agents


@pytest.mark.parametrize(
    ("host", "plain"),
    [
        ("127.0.0.1", True),
        ("127.8.8.8", True),
        ("::1", True),
        ("localhost", True),
        ("::ffff:127.0.0.1", True),
        ("gate.example", False),
        ("192.0.2.1", False),
        ("localhost.example", False),
        ("::", False),
    ],
)
def test_agent_is_plain_only_to_its_own_machine(tmp_path: Path, host: str, plain: bool) -> None:
    """tls = auto: TLS, but for servers that are this machine by their very name."""
    assert is_loopback(host) is plain
    found = agent(tmp_path, "")
    assert speaks_tls(found, ServerPlace(host, 2065)) is not plain
    assert speaks_tls(replace(found, authority="/x.pem"), ServerPlace(host, 2065))
    assert speaks_tls(replace(found, tls="yes"), ServerPlace(host, 2065))
    assert not speaks_tls(replace(found, tls="no"), ServerPlace(host, 2065))


def test_agent_without_tls_to_another_machine_has_to_be_asked_for(tmp_path: Path) -> None:
    """tls = no is refused for another machine, unless the insecure setting stands there by name."""
    (line,) = agent_errors(tmp_path, "tls = no", "127.0.0.1:2065, gate.example:2065")
    assert line.startswith("tls: gate.example is another machine, and plaintext can be read")
    assert agent(tmp_path, "tls = no\nallow_plaintext = yes").tls == "no"
    assert agent(tmp_path, "tls = no", "127.0.0.1:2065").tls == "no"


def test_serial_comes_from_the_certificate(tmp_path: Path) -> None:
    """The serial is that of the certificate; another one beside it is an error before anything opens."""
    issued = Issuer(tmp_path).device("plc-7")
    text = f"certificate = {issued.certificate_file}\ncertificate_key = {issued.key_file}"
    assert agent(tmp_path, text).serial == "plc-7"
    assert agent(tmp_path, f"{text}\nserial = plc-7").serial == "plc-7"
    assert agent_errors(tmp_path, f"{text}\nserial = plc-8") == [
        "serial: plc-8: the certificate is for device plc-7"
    ]
    assert agent(tmp_path, "").serial == "gate"  # the host's name


def test_agent_needs_both_files(tmp_path: Path) -> None:
    """A certificate without its key, a key without its certificate."""
    issued = Issuer(tmp_path).device("plc-7")
    (one,) = agent_errors(tmp_path, f"certificate = {issued.certificate_file}")
    (two,) = agent_errors(tmp_path, f"certificate_key = {issued.key_file}")
    assert one == "certificate_key: missing: certificate is set, both are wanted"
    assert two == "certificate: missing: certificate_key is set, both are wanted"


def test_files_are_of_no_use_without_tls(tmp_path: Path) -> None:
    """tls = no beside an authority is a mistake."""
    text = f"tls = no\nauthority = {Issuer(tmp_path).file}"
    assert agent_errors(tmp_path, text, "127.0.0.1:1") == ["authority: of no use with tls = no"]
    (error,) = agent_errors(tmp_path, "tls = no\nfollow = verified", "127.0.0.1:1")
    assert error == "follow: verified: of no use with tls = no, configured or no wanted"


def test_what_dns_says_does_not_decide_about_tls(tmp_path: Path) -> None:
    """A name of SRV is another machine, whatever it stands for."""
    (error,) = agent_errors(tmp_path, "tls = no", "_revtunnel._tcp.example")
    assert error.startswith("tls: _revtunnel._tcp.example is another machine")
    listed, local = ServerPlace("127.0.0.1", 2065, name="example"), ServerPlace("127.0.0.1", 2065)
    assert [speaks_tls(agent(tmp_path, ""), each) for each in (listed, local)] == [True, False]


def test_wrong_certificate_of_an_agent(tmp_path: Path) -> None:
    """A server's certificate is none for a device; the words name the file."""
    issued = Issuer(tmp_path).server("gate.example")
    text = f"certificate = {issued.certificate_file}\ncertificate_key = {issued.key_file}"
    (line,) = agent_errors(tmp_path, text)
    assert line.startswith(f"certificate: {issued.certificate_file}: certificate is not for devices")


def test_words_for_nothing(tmp_path: Path) -> None:
    """``system``, ``auto`` and ``none`` become None."""
    found = agent(tmp_path, "authority = system\nserver_name = auto\ncertificate = none")
    assert (found.authority, found.server_name, found.certificate) == (None, None, None)
    assert agent_rules(found).files.authority is None
    assert load_server(None, None, HERE).listeners[0].crl is None
