"""Settings of the HTTP proxy and of PROXY headers: what is refused before any socket opens, and how."""

import ipaddress
from dataclasses import replace
from pathlib import Path

import pytest

from revtunnel.daemons.agent_options import AgentOptions
from revtunnel.daemons.agent_reading import load_agent
from revtunnel.daemons.agent_settings import AgentSettings
from revtunnel.daemons.proxy_settings import headers_of
from revtunnel.daemons.schema import changes
from revtunnel.ground.errors import SettingsError
from revtunnel.sockets.ways.http_connect import ProxyCredentials
from revtunnel.sockets.ways.proxy_choice import DIRECT, HttpProxy, ProxyChoice
from tests.daemons.test_options import parse, refused
from tests.daemons.test_settings import HERE, errors, server


def agent(tmp_path: Path, text: str, servers: str = "gate.example:2065", **environ: str) -> AgentSettings:
    """The settings of an agent."""
    path = tmp_path / "a.ini"
    path.write_text(f"[agent]\nservers = {servers}\nlocal = 10.0.0.5:23, http=10.0.0.5:80\n{text}\n")
    return load_agent(str(path), None, replace(HERE, environ=environ))


def wrong(tmp_path: Path, text: str, servers: str = "gate.example:2065", **environ: str) -> list[str]:
    """What is wrong with them."""
    with pytest.raises(SettingsError) as caught:
        agent(tmp_path, text, servers, **environ)
    return [line.partition("[agent] ")[2] for line in caught.value.errors]


def secret(tmp_path: Path, text: str = "me:s3cret\n", mode: int = 0o600) -> Path:
    """A file for proxy_credentials."""
    path = tmp_path / "proxy.secret"
    path.write_text(text)
    path.chmod(mode)
    return path


# ---- the HTTP proxy


def test_without_settings_the_environment_counts(tmp_path: Path) -> None:
    """Its proxy leads to servers elsewhere, within what NO_PROXY says."""
    assert agent(tmp_path, "").proxy == DIRECT
    found = agent(tmp_path, "", HTTPS_PROXY="http://u:p@proxy.plant:3128", NO_PROXY="near.example")
    assert found.proxy.proxy_for("gate.example", 2065) == HttpProxy(
        "proxy.plant", 3128, ProxyCredentials("u", "p")
    )
    assert found.proxy.proxy_for("near.example", 2065) is None
    assert found.proxy.proxy_for("127.0.0.1", 2065) is None


def test_a_proxy_by_its_name(tmp_path: Path) -> None:
    """It wins over the environment; ``none`` goes directly."""
    environ = {"https_proxy": "http://other:1"}
    named = agent(tmp_path, "proxy = http://proxy.plant:3128", **environ)
    assert named.proxy == ProxyChoice(HttpProxy("proxy.plant", 3128))
    assert agent(tmp_path, "proxy = none", **environ).proxy == DIRECT


def test_user_and_password_stand_in_a_file(tmp_path: Path) -> None:
    """For either kind of proxy; printed settings do not show them."""
    path = secret(tmp_path)
    for text, environ in (("proxy = http://proxy:1", {}), ("", {"all_proxy": "proxy:1"})):
        found = agent(tmp_path, f"{text}\nproxy_credentials = {path}", **environ)
        proxy = found.proxy.proxy_for("gate.example", 2065)
        assert proxy is not None and proxy.credentials == ProxyCredentials("me", "s3cret")
        assert found.proxy_credentials == str(path)
        assert "s3cret" not in repr(found)


def test_the_file_must_be_closed_to_others_and_of_one_line(tmp_path: Path) -> None:
    """One error each, with the file and without what it holds."""
    for path, why in (
        (secret(tmp_path, mode=0o644), "0600 wanted"),
        (tmp_path / "none.such", "No such file"),
        (tmp_path, "Is a directory"),
    ):
        (line,) = wrong(tmp_path, f"proxy = http://proxy:1\nproxy_credentials = {path}")
        assert line.startswith(f"proxy_credentials: {path}: ") and why in line
    for text in ("s3cret", "me:s3cret\nme:s3cret", ""):
        path = secret(tmp_path, text)
        (line,) = wrong(tmp_path, f"proxy = http://proxy:1\nproxy_credentials = {path}")
        assert line == f"proxy_credentials: {path}: one line user:password wanted"
    (line,) = wrong(tmp_path, f"proxy = none\nproxy_credentials = {secret(tmp_path)}")
    assert line == "proxy_credentials: of no use with proxy = none"


def test_no_password_in_the_ini_or_on_the_command_line(tmp_path: Path) -> None:
    """The advice names the file, and nothing is repeated."""
    (line,) = wrong(tmp_path, "proxy = http://me:s3cret@proxy:1")
    assert line == "proxy: a user or password in the URL is refused, a file named by proxy_credentials wanted"
    said = refused(AgentOptions, "--proxy", "http://me:s3cret@proxy:1")
    assert "proxy_credentials" in said and "s3cret" not in said


def test_an_environment_that_cannot_be_used_is_an_error_only_where_it_is_needed(tmp_path: Path) -> None:
    """A SOCKS proxy is no obstacle to a server on this machine."""
    (line,) = wrong(tmp_path, "", ALL_PROXY="socks5://u:s3cret@proxy:1080")
    assert line == (
        "proxy: for server gate.example, environment variable ALL_PROXY: 'proxy:1080': "
        "only http:// proxies are spoken to, http://HOST:PORT wanted"
    )
    agent(tmp_path, "", "127.0.0.1:2065", ALL_PROXY="socks5://proxy:1080")
    agent(tmp_path, "proxy = none", ALL_PROXY="socks5://proxy:1080")


def test_a_reload_changes_the_way(tmp_path: Path) -> None:
    """Proxy, credentials and headers are live."""
    old = agent(tmp_path, "proxy = http://proxy:1")
    new = agent(tmp_path, f"proxy = http://proxy:2\nproxy_credentials = {secret(tmp_path)}")
    assert changes(old, new) == (["[agent] proxy", "[agent] proxy_credentials"], [])
    new = agent(tmp_path, "proxy = http://proxy:1\nproxy_protocol = http=v2")
    assert changes(old, new) == (["[agent] proxy_protocol"], [])


def test_options_of_the_agent(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """--proxy, --proxy-credentials and --proxy-protocol are the settings of those names."""
    words = ["--server", "gate:1", "--local", "http=10.0.0.5:80", "--local", "ssh=10.0.0.5:22"]
    words += ["--proxy", "http://proxy:3128", "--proxy-credentials", str(secret(tmp_path))]
    words += ["--proxy-protocol", "http=v2", "--proxy-protocol", "ssh=v1"]
    settings = parse(AgentOptions, *words).settings
    assert isinstance(settings, AgentSettings)
    assert str(settings.proxy.proxy) == "http://proxy:3128"
    assert settings.proxy_protocol == (("http", "v2"), ("ssh", "v1"))
    with pytest.raises(SystemExit):
        parse(AgentOptions, *words, "--check-config")
    assert "\nproxy: http://proxy:3128\n" in capsys.readouterr().out
    assert "NAME=v1 or NAME=v2" in refused(AgentOptions, "--proxy-protocol", "http")


# ---- PROXY headers, and how many a service takes at once


def test_how_many_a_service_takes_is_said_of_one_that_is_offered(tmp_path: Path) -> None:
    """By its name in local, once."""
    assert agent(tmp_path, "at_once = tcp-23=1, http=16").at_once == (("tcp-23", 1), ("http", 16))
    assert wrong(tmp_path, "at_once = ssh=1") == ["at_once: ssh: local has no service of that name"]
    assert wrong(tmp_path, "at_once = http=1, http=2") == ["at_once: http stands there twice"]
    for text in ("http", "http=0", "=1", "http=x", "http=100000"):
        (line,) = wrong(tmp_path, f"at_once = {text}")
        assert "NAME=COUNT wanted" in line


def test_headers_for_services_that_are_offered(tmp_path: Path) -> None:
    """By the name of the offer, also one that the agent made up; each once."""
    found = agent(tmp_path, "proxy_protocol = tcp-23=v1, http=v2")
    assert found.proxy_protocol == (("tcp-23", "v1"), ("http", "v2"))
    assert wrong(tmp_path, "proxy_protocol = ssh=v2") == [
        "proxy_protocol: ssh: local has no service of that name"
    ]
    assert wrong(tmp_path, "proxy_protocol = http=v1, http=v2") == ["proxy_protocol: http stands there twice"]
    for text in ("http", "http=v3", "=v1", "http=2"):
        (line,) = wrong(tmp_path, f"proxy_protocol = {text}")
        assert "NAME=v1 or NAME=v2 wanted" in line


def test_headers_by_target(tmp_path: Path) -> None:
    """CONNECT names a target, so two offers of one target are told the same, or it is an error."""
    found = agent(tmp_path, "proxy_protocol = tcp-23=v1, http=v2")
    headers = headers_of(found.local, found.proxy_protocol)
    assert {str(target): encode(None)[:5] for target, encode in headers.items()} == {
        "10.0.0.5:23": b"PROXY",
        "10.0.0.5:80": b"\r\n\r\n\0",
    }
    twice = "local = a=10.0.0.5:80, b=10.0.0.5:80\nproxy_protocol = "
    path = tmp_path / "b.ini"
    path.write_text(f"[agent]\nservers = 127.0.0.1:1\n{twice}a=v1, b=v1\n")
    assert len(load_agent(str(path), None, HERE).local) == 2
    path.write_text(f"[agent]\nservers = 127.0.0.1:1\n{twice}a=v1\n")
    with pytest.raises(SettingsError, match=r"b: 10\.0\.0\.5:80 is offered twice"):
        load_agent(str(path), None, HERE)


@pytest.mark.parametrize("title", ["listener main", "pool default"])
def test_headers_of_load_balancers(tmp_path: Path, title: str) -> None:
    """Who sends them must be named, and only with them; networks are written exactly."""
    text = f"[{title}]\nproxy_protocol = any\nproxy_from = 10.0.0.7, fd00::/64\n"
    found = server(tmp_path, text)
    each = found.listeners[0] if title.startswith("listener") else found.pools[0]
    assert each.proxy_protocol == "any"
    assert each.proxy_from == tuple(map(ipaddress.ip_network, ("10.0.0.7/32", "fd00::/64")))
    (line,) = errors(tmp_path, f"[{title}]\nproxy_protocol = v2\n")
    assert line.endswith("proxy_from: missing: with proxy_protocol the load balancer's address wanted")
    (line,) = errors(tmp_path, f"[{title}]\nproxy_from = 10.0.0.7\n")
    assert line.endswith("proxy_from: only with proxy_protocol = v1, v2 or any")
    (line,) = errors(tmp_path, f"[{title}]\nproxy_protocol = v2\nproxy_from = 10.0.0.7/8\n")
    assert "'10.0.0.7/8': an address or a network such as 10.0.0.0/8 wanted, 10.0.0.7/8 has host bits" in line
