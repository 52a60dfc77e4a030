"""Enrolment, renewal and revocation with real daemons: from nothing to a device, and out again."""

import json
import os
import shutil
import signal
import stat
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from revtunnel.trust.agent_files import AgentFiles
from revtunnel.trust.authority import fingerprint_of, issue_device, new_key
from revtunnel.trust.authority_files import AuthorityDirectory, row_of
from revtunnel.trust.certificate_book import DEVICE
from revtunnel.trust.enrolment import EnrolmentToken, parse_token, write_token
from revtunnel.trust.token_watch import REFUSED
from tests.support.daemons import Agent, Lab, Server
from tests.support.fork_server import output_of
from tests.support.services import Echo
from tests.support.traffic import connect, read_exactly

pytestmark = pytest.mark.slow

HOST = "127.0.0.1"


class Firm:
    """An authority beside a server, set up as an operator does it: by commands."""

    def __init__(self, lab: Lab, names: tuple[str, ...] = (HOST, "localhost")) -> None:
        self.lab = lab
        self.server: Server = lab.server({"agent": {}})
        self.ca("init")
        made = self.ca("issue-server", *names)
        tls = {key: made[key] for key in ("certificate", "certificate_key", "authority")}
        self.server.write(**{"listener main": {"tls": "yes", **tls}, "agent": {}})
        self.authority = AuthorityDirectory(str(lab.directory / "server.state" / "authority"))

    def start(self) -> "Firm":
        """Run the server."""
        self.server.start()
        return self

    def ca(self, *words: str) -> Any:
        """``revtunnelctl ca``, which needs no server."""
        command = [
            sys.executable,
            "-m",
            "revtunnel.ctl.ctl",
            "--json",
            "--config",
            str(self.server.config),
        ]
        environment = self.server.environment()
        return json.loads(output_of([*command, "ca", *words], env=environment))

    def token(self, serial: str = "plc-7", *words: str) -> str:
        """The line that an operator pastes, and from it the token; where to dial is in it too."""
        line = str(self.server.control("enroll", serial, *words)["line"]).split()
        assert line[:2] == ["revtunnel-agent", "--enroll"]
        assert line[3:] == ["--server", f"{HOST}:{self.server.port}"]
        return line[2]

    def agent(
        self, token: str = "", serial: str = "plc-7", name: str = "", *words: str, **more: Any
    ) -> Agent:
        """An agent with a token, not started; ``settings`` and offers as for ``Agent``."""
        options = [*(["--enroll", token] if token else []), *words]
        keys = {"state_directory": self.state(name), "retry_first": "0.1 s", "retry_most": "1 s"}
        more.setdefault("offers", {"it": f"{HOST}:9"})
        servers = [f"{HOST}:{self.server.port}"]
        made = Agent(
            self.lab.directory, serial, servers, settings={"agent": keys}, options=options, name=name, **more
        )
        added: Agent = self.lab.add(made)
        return added

    def state(self, name: str = "") -> Path:
        """Where an agent keeps its files."""
        return self.lab.directory / f"{name or 'agent'}.state"

    def kept(self, serial: str = "plc-7", name: str = "") -> x509.Certificate:
        """The certificate that an agent has."""
        return AgentFiles(str(self.state(name)), serial).load()

    def leave(self, days: int, age: timedelta, serial: str = "plc-7") -> x509.Certificate:
        """Files as an enrolment of some time ago left them; the server learns of it at its next reload."""
        files, key = AgentFiles(str(self.state()), serial), new_key()
        authority = self.authority.load()
        made = issue_device(authority, serial, key.public_key(), days, datetime.now(UTC) - age)
        files.trust(authority.certificate)
        files.keep(key, made)
        self.authority.record(row_of(made, DEVICE, serial, datetime.now(UTC) - age))
        return made

    def reload(self) -> None:
        """Let the server read its settings and lists again."""
        self.server.signal(signal.SIGHUP)
        self.server.wait_event("settings-reloaded")


@pytest.fixture
def firm(lab: Lab) -> Firm:
    """One authority and its server, running."""
    return Firm(lab).start()


def end_of(agent: Agent) -> int:
    """The exit status of an agent that ends by itself."""
    agent.complains = True
    agent.start(wait=False)
    return agent.wait()


def refusal(firm: Firm, count: int = 1) -> str:
    """Why the server refused whoever came last."""
    return str(firm.server.wait_event("link-refused", count=count, reason="denied")["detail"])


# ---- the first time


def test_one_pasted_line(firm: Firm) -> None:
    """From a token to a client's bytes; the same line works after a restart, without the token."""
    with Echo() as echo:
        token = firm.token()
        agent = firm.agent(token, offers={"echo": echo.target}).start()
        up = firm.server.wait_link("plc-7")
        assert (up["authenticated"], up["tls"]) == (True, "TLSv1.3")
        with connect(firm.server.client_port("plc-7", "echo")) as client:
            client.sendall(b"hello")
            assert read_exactly(client, 5) == b"hello"
        issued = firm.server.wait_event("certificate-issued", serial="plc-7", by="token")
        assert issued["fingerprint"] == fingerprint_of(firm.kept())
        modes = {each.name: stat.S_IMODE(each.stat().st_mode) for each in firm.state().iterdir()}
        assert modes == {"plc-7.pem": 0o600, "plc-7.authority.pem": 0o644}
        agent.stop()
        agent.start()
        firm.server.wait_link("plc-7", 2)
        assert len(firm.server.events("certificate-issued")) == 1
        agent.options = []
        agent.stop()
        agent.start()
        firm.server.wait_link("plc-7", 3)
    secret = parse_token(token).secret.hex()
    for log in (firm.server.log_path, agent.log_path):
        assert token not in log.read_text() and secret not in log.read_text()
    assert [line for line in firm.server.events() if line["level"] not in ("debug", "info")] == []


def test_enrol_only_and_by_standard_input(firm: Firm) -> None:
    """For images and installers: the files are made, status 0; nothing offered is the same."""
    for name, words, offers in (("a", ["--enroll-only"], {"it": f"{HOST}:9"}), ("b", [], {})):
        agent = firm.agent("-", "plc-7", name, *words, offers=offers)
        done = subprocess.run(
            agent.command(),
            input=firm.token("plc-7", "--replace").encode() + b"\n",
            env=agent.environment(),
            cwd=agent.directory,
            stdout=subprocess.DEVNULL,
            timeout=20,
            check=False,
        )
        assert done.returncode == 0
        assert firm.kept(name=name).not_valid_after_utc > datetime.now(UTC) + timedelta(days=89)
    assert firm.server.events("link-up") == []


def test_wrong_used_and_late_tokens(firm: Firm) -> None:
    """Each ends enrolment alone with status 1 and the same words; the server's log knows no more either."""
    good = firm.token()
    assert end_of(firm.agent(good, "plc-7", "first", "--enroll-only")) == 0
    wrong = write_token(EnrolmentToken(parse_token(good).pin, os.urandom(16), "plc-7"))
    words = []
    for name, token in (("used", good), ("wrong", wrong)):
        agent = firm.agent(token, "plc-7", name, "--enroll-only")
        assert end_of(agent) == 1
        words.append(agent.events("certificate-failed")[-1]["detail"])
        assert not AgentFiles(str(firm.state(name)), "plc-7").is_good(datetime.now(UTC))
    assert words == [REFUSED] * 2
    assert {line["detail"] for line in firm.server.events("link-refused", reason="denied")} == {
        "refused: the token is wrong, used or too late"
    }


def test_a_server_that_the_token_does_not_name(firm: Firm) -> None:
    """Another authority's server learns nothing, and is tried again; nothing is kept of it."""
    token = parse_token(firm.token())
    agent = firm.agent(write_token(EnrolmentToken(bytes(32), token.secret, "plc-7")))
    agent.start(wait=False)
    failed = agent.wait_event("certificate-failed", 2)
    assert "does not belong to the authority of this token" in failed["detail"]
    assert list(firm.state().glob("*")) == []
    assert firm.server.events("certificate-issued") == []
    assert firm.server.events("link-refused", reason="denied") == []


def test_a_server_with_another_name(lab: Lab) -> None:
    """The right authority is not enough: a certificate for another server gets no token."""
    firm = Firm(lab, ("other.example",))
    firm.start()
    firm.server.control("enroll", "plc-7")
    line = firm.server.control("enroll", "plc-7")["line"]
    agent = firm.agent(line.split()[2])
    agent.start(wait=False)
    failed = agent.wait_event("certificate-failed")
    assert "certificate is for other.example, not for 127.0.0.1" in failed["detail"]
    assert firm.server.events("certificate-issued") == []


def test_a_server_that_is_not_there_yet(firm: Firm) -> None:
    """The agent waits for it, and enrols when it comes back; the token outlives a restart of the server."""
    token = firm.token()
    firm.server.stop()
    agent = firm.agent(token)
    agent.start(wait=False)
    agent.wait_event("certificate-failed")
    firm.server.start()
    firm.server.wait_link("plc-7")


def test_without_a_certificate_there_is_only_enrolment(firm: Firm) -> None:
    """A token lets nobody have a link; neither does a connection without one."""
    agent = firm.agent()
    agent.write(agent={"authority": firm.authority.file("authority.pem"), "certificate": "none"})
    agent.start()
    assert "no certificate" in agent.wait_event("state", state="away")["detail"]
    assert firm.server.wait_event("link-refused", reason="certificate")["detail"] == "no certificate"


# ---- renewal


def test_renewal_without_a_person(firm: Firm) -> None:
    """Due at the start: a new certificate, a new key, the link and a client's stream untouched by it."""
    old = firm.leave(90, timedelta(days=89))
    with Echo() as echo:
        agent = firm.agent(offers={"echo": echo.target}).start()
        renewed = agent.wait_event("certificate-issued", by="renewal")
        with connect(firm.server.client_port("plc-7", "echo")) as client:
            client.sendall(b"hello")
            assert read_exactly(client, 5) == b"hello"
        new = firm.kept()
        assert renewed["fingerprint"] == fingerprint_of(new) != fingerprint_of(old)
        assert new.public_key() != old.public_key()
        assert firm.server.events("link-down") == []
        firm.server.stop()
        firm.server.start()
        firm.server.wait_link("plc-7")
        (row,) = firm.server.control("devices")["devices"]
        assert row["certificate"] == fingerprint_of(new)
    assert len(agent.events("certificate-issued")) == 1


def test_a_stolen_key_does_not_renew_unseen(firm: Firm) -> None:
    """Copied files renew beside their owner's: that is told, and who comes with the old ones is refused."""
    firm.leave(90, timedelta(days=89))
    shutil.copytree(firm.state(), firm.state("thief"))
    shutil.copytree(firm.state(), firm.state("old"))
    owner = firm.agent().start()
    owner.wait_event("certificate-issued", by="renewal")
    thief = firm.agent(name="thief").start()
    thief.wait_event("certificate-issued", by="renewal")
    fork = firm.server.wait_event("certificate-forked")
    assert (fork["serial"], fork["peer"]) == ("plc-7", HOST)
    assert fingerprint_of(firm.kept()) in fork["detail"]
    assert firm.server.control("status")["forked"] == ["plc-7"]
    thief.stop()
    owner.stop()
    owner.start()
    owner.wait_event("link-up")
    owner.stop()
    firm.agent(name="old").start(wait=False)
    assert firm.server.wait_event("link-refused", reason="certificate")["detail"].endswith("is revoked")
    assert "the new one is in use" in firm.server.wait_event("certificate-forked", 2)["detail"]


def test_by_a_setting_two_renewals_end_both(firm: Firm) -> None:
    """The device is revoked and its link cut; a person enrols it anew."""
    firm.server.write(authority={"two_renewals": "revoke"})
    firm.server.signal(signal.SIGHUP)
    firm.server.wait_event("settings-reloaded")
    firm.leave(90, timedelta(days=89))
    shutil.copytree(firm.state(), firm.state("thief"))
    owner = firm.agent().start()
    owner.wait_event("certificate-issued", by="renewal")
    firm.server.wait_link("plc-7")
    firm.agent(name="thief").start(wait=False)
    assert firm.server.wait_event("device-revoked")["by"] == "two_renewals"
    firm.server.wait_event("link-down", serial="plc-7")
    firm.server.wait_event("link-refused", reason="certificate")


def test_a_renewal_that_fails_is_told_and_harms_nothing(firm: Firm) -> None:
    """A server that lost its authority: the link stays, the log says until when."""
    firm.leave(90, timedelta(days=89))
    before = firm.kept()
    firm.server.write(authority={"directory": "none"})
    firm.server.signal(signal.SIGHUP)
    firm.server.wait_event("settings-reloaded")
    agent = firm.agent().start()
    failed = agent.wait_event("certificate-failed")
    assert "the server says denied: its log says why; ours ends on" in failed["detail"]
    firm.server.wait_link("plc-7")
    assert firm.kept() == before
    assert firm.server.events("link-down") == []


# ---- a certificate that has ended


def test_a_device_that_was_off_for_long_comes_back(firm: Firm) -> None:
    """Its certificate is renewed within the grace, for its own key, and the audit file has it."""
    old = firm.leave(90, timedelta(days=100))
    firm.reload()
    agent = firm.agent().start()
    firm.server.wait_link("plc-7")
    assert "certificate expired on" in agent.events("state", state="certificate")[0]["detail"]
    new = firm.kept()
    assert new.public_key() == old.public_key() and new.not_valid_after_utc > datetime.now(UTC)
    assert firm.server.events("certificate-issued", by="late-renewal")
    assert firm.server.events("link-refused") == []
    audit = (Path(firm.authority.path).parent / "audit.jsonl").read_text().splitlines()
    changes = [line for line in map(json.loads, audit) if line.get("operation") == "certificate-renewed-late"]
    assert [(line["subject"], line["by"]) for line in changes] == [("plc-7", "renewal_grace")]


def test_a_token_in_a_file_brings_it_back(firm: Firm) -> None:
    """Where nothing is renewed any more the agent stays and says what to do, until the token is there."""
    firm.server.write(authority={"renewal_grace": "0"})
    firm.leave(90, timedelta(days=100))
    firm.reload()
    agent = firm.agent().start()
    failed = agent.wait_event("certificate-failed")["detail"]
    assert failed.startswith("the other side refused our certificate: expired; ours ended on")
    token_file = firm.state() / "plc-7.token"
    assert failed.endswith(f"makes a token, which may be put into {token_file}")
    assert "certificate: expired" in agent.wait_event("state", state="away")["detail"]
    token_file.write_text(firm.token("plc-7", "--replace"))
    firm.server.wait_link("plc-7")
    assert not token_file.exists()
    assert firm.kept().not_valid_after_utc > datetime.now(UTC)
    assert agent.running


def test_an_agent_with_a_refused_token_waits_for_another(firm: Firm) -> None:
    """It does not end: what is written in its unit is no good any more, and somebody brings the next one."""
    token = firm.token()
    assert end_of(firm.agent(token, "plc-7", "first", "--enroll-only")) == 0
    agent = firm.agent(token).start(wait=False)
    assert agent.wait_event("certificate-failed")["detail"] == REFUSED
    token_file = firm.state() / "plc-7.token"
    assert str(token_file) in agent.wait_event("state", 2, state="enrolling")["detail"]
    token_file.write_text(firm.token("plc-7", "--replace"))
    firm.server.wait_link("plc-7")


def test_an_old_token_does_not_stand_in_the_way(firm: Firm) -> None:
    """The same line with its used token, and a certificate that has ended: that is renewed."""
    token = firm.token()
    assert end_of(firm.agent(token, "plc-7", "first", "--enroll-only")) == 0
    firm.server.control("revoke", "plc-7")
    firm.leave(90, timedelta(days=100))
    firm.reload()
    agent = firm.agent(token).start(wait=False)
    firm.server.wait_link("plc-7")
    assert agent.events("certificate-failed")[0]["detail"] == REFUSED


# ---- revocation


def test_revocation_cuts_at_once_and_for_good(firm: Firm) -> None:
    """Link and streams end, the device does not come back, also not after a restart; a new token helps."""
    with Echo() as echo:
        agent = firm.agent(firm.token(), offers={"echo": echo.target}).start()
        firm.server.wait_link("plc-7")
        with connect(firm.server.client_port("plc-7", "echo")) as client:
            client.sendall(b"hello")
            assert read_exactly(client, 5) == b"hello"
            firm.server.control("revoke", "plc-7")
            with pytest.raises(OSError):
                assert read_exactly(client, 1) == b"x"  # an orderly end would be empty
        firm.server.wait_event("link-down", serial="plc-7")
        assert "revoked by an operator" in agent.wait_event("link-down")["detail"]
        refused = firm.server.wait_event("link-refused", reason="certificate")
        assert refused["detail"] == "certificate of plc-7 is revoked"
        assert "refused our certificate" in agent.wait_event("state", 2, state="away")["detail"]
        firm.server.stop()
        firm.server.start()
        firm.server.wait_event("link-refused", reason="certificate")
        agent.stop()
        other = firm.agent(firm.token(), "plc-7", "other", offers={"echo": echo.target}).start()
        firm.server.wait_link("plc-7")
        assert other.events("certificate-issued")
    states = [row["state"] for row in firm.ca("list")["certificates"] if row["kind"] == "device"]
    assert states == ["revoked", "good"]


def test_an_authority_made_while_the_server_runs(lab: Lab) -> None:
    """It counts from the next reload on."""
    firm = Firm(lab)
    aside = Path(firm.authority.path)
    aside.rename(aside.with_name("later"))
    firm.server.write(
        **{
            "listener main": {
                key: str(value).replace("/authority/", "/later/")
                for key, value in firm.server.settings["listener main"].items()
            }
        }
    )
    firm.start()
    assert firm.server.control("enroll", "plc-8")["key"].startswith("rtkey1_")
    aside.with_name("later").rename(aside)
    firm.server.write(
        **{
            "listener main": {
                key: str(value).replace("/later/", "/authority/")
                for key, value in firm.server.settings["listener main"].items()
            }
        }
    )
    firm.server.control("reload")
    firm.agent(firm.token()).start()
    firm.server.wait_link("plc-7")


def test_a_certified_device_is_nobody_in_plain(firm: Firm) -> None:
    """Its serial is taken: who comes by another door without a proof is refused, others there are not."""
    firm.server.write(**{"listener side": {"address": f"{HOST}:0"}})
    firm.server.stop()
    firm.server.start()
    assert end_of(firm.agent(firm.token(), "plc-7", "real", "--enroll-only")) == 0
    side = firm.server.ports[1]
    taken, other = (
        firm.lab.add(Agent(firm.lab.directory, serial, [f"{HOST}:{side}"], {"it": f"{HOST}:9"})).start()
        for serial in ("plc-7", "plc-8")
    )
    assert "asks for the device key of plc-7" in taken.wait_event("state", state="away")["detail"]
    firm.server.wait_link("plc-8")
    assert other.events("state", state="away") == []
    assert firm.server.events("link-up", serial="plc-7") == []


def test_n37_a_lost_ledger_forgets_no_revocation(firm: Firm) -> None:
    """The authority's own list has it; the server says that it is in doubt until the file is gone."""
    firm.agent(firm.token()).start()
    firm.server.wait_link("plc-7")
    firm.server.control("revoke", "plc-7")
    firm.server.stop()
    ledger = Path(firm.authority.path).parent / "revtunnel.db"
    for each in ledger.parent.glob("revtunnel.db-*"):
        each.unlink()
    ledger.write_bytes(b"x" * 5000)
    firm.server.start()
    doubt = firm.server.wait_event("state", 2, state="ledger")["detail"]
    assert doubt.startswith(f"{ledger}.corrupt-1: who is enrolled or revoked is in doubt")
    assert firm.server.wait_event("link-refused", reason="certificate")["detail"].endswith("is revoked")
    assert firm.server.events("link-up") == []
