"""Two nodes as processes, with a secret: what an operator does at one counts at both, whatever happens."""

import contextlib
import json
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.nodes_lab import NAMES, NodesLab, serial_of
from tests.support.browsers import Browser
from tests.support.daemons import Agent, Server, laboratory
from tests.support.fork_server import output_of
from tests.support.keyed_streams import HEAD
from tests.support.redis_server import INSTALLED, PROGRAM
from tests.support.web_people import ConnectionClosed, Person, code_of

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(120),
    pytest.mark.skipif(not INSTALLED, reason=f"{PROGRAM} is not installed"),
]
PLC = serial_of(0)


class Sharing(NodesLab):
    """Nodes with one authority, a door for enrolment, and people."""

    def arm(self) -> None:
        """Before they start: secret, authority, certificates."""
        one = self.nodes["one"]
        module = [sys.executable, "-m", "revtunnel.ctl.ctl", "--json", "--config", str(one.config), "ca"]
        output_of([*module, "init"], env=one.environment())
        made = json.loads(output_of([*module, "issue-server", "127.0.0.1"], env=one.environment()))
        tls = {key: made[key] for key in ("certificate", "certificate_key", "authority")}
        secret = self.lab.directory / "secret"
        secret.write_text("a secret of more than 32 characters\n")
        os.chmod(secret, 0o600)
        for name, node in self.nodes.items():
            mine = self.lab.directory / f"{name}.state"
            if node is not one:
                shutil.copytree(self.lab.directory / "one.state" / "authority", mine / "authority")
            node.write(
                **{
                    "cluster": {"secret_file": secret},
                    "listener enrol": {"address": "127.0.0.1:0", "tls": "yes", **tls},
                    "web main": {"address": "127.0.0.1:0", "plain_cookies": "yes"},
                    "agent": {},
                }
            )

    def at(self, name: str, serial: str, *options: str, port: int = 0, **settings: object) -> Agent:
        """An agent at one node, not started."""
        node = self.nodes[name]
        keys = {"agent": {"retry_first": 0.2, "retry_most": 1, **settings}}
        own = [f"127.0.0.1:{node.ports[port]}"]
        made = Agent(
            self.lab.directory, serial, own, {"it": "127.0.0.1:9"}, keys, options, name=f"{serial}-{name}"
        )
        made.complains = True
        added: Agent = self.lab.add(made)
        return added

    def enroller(self, name: str, serial: str, token: str) -> Agent:
        """One that gets a certificate with a token, and ends."""
        port = [each for each in self.nodes[name].settings if each.startswith("listener ")].index(
            "listener enrol"
        )
        return self.at(name, serial, "--enroll", token, "--enroll-only", port=port)

    def everywhere(self, *words: str) -> None:
        """Until both nodes say the same of this."""
        one, two = self.nodes.values()
        self.until(lambda: one.control(*words) == two.control(*words), " ".join(words))


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sharing]:
    """All of it, with a device at the first node."""
    directory = tmp_path_factory.mktemp("sharing")
    with (
        laboratory(directory) as found,
        contextlib.closing(Sharing(found, directory, 1, {}, NAMES[:2])) as nodes,
    ):
        nodes.arm()
        nodes.start()
        yield nodes


def users(node: Server) -> list[str]:
    """Who is known there."""
    return [row["user"] for row in node.control("users")["users"]]


def test_a_device_is_enrolled_once(lab: Sharing) -> None:
    """Its key counts at the other node, and no longer once it is revoked."""
    key = lab.lab.directory / "dev.key"
    lab.nodes["one"].control("enroll", "dev", "--key", "--out", str(key))
    lab.everywhere("enrolled")
    agent = lab.at("two", "dev", key_file=key).start()
    assert lab.nodes["two"].wait_link("dev")["authenticated"]
    lab.nodes["one"].control("revoke", "dev")
    lab.nodes["two"].wait_event("link-down", serial="dev")
    agent.stop()
    assert lab.nodes["two"].control("enrolled")["enrolled"] == []


def test_a_token_is_used_once_over_all_nodes(lab: Sharing) -> None:
    """Shown at both at once; while nobody can say it is refused, and good afterwards."""
    token = str(lab.nodes["one"].control("enroll", "new")["line"]).split()[2]
    lab.nodes["one"].control("mute", PLC)  # told behind it
    lab.everywhere("muted")
    lab.nodes["two"].control("unmute", PLC)
    agents = [lab.enroller(name, "new", token) for name in lab.nodes]
    for agent in agents:
        agent.start(wait=False)
    ends = [agent.wait() for agent in agents]
    assert sorted(ends)[0] == 0 and sorted(ends)[1] != 0
    issued = [each for node in lab.nodes.values() for each in node.events("certificate-issued", serial="new")]
    assert len(issued) == 1
    token = str(lab.nodes["one"].control("enroll", "newer")["line"]).split()[2]
    lab.engine.pause()
    agent = lab.enroller("one", "newer", token)
    agent.start(wait=False)
    lab.nodes["one"].wait_event("link-refused", reason="directory-away")
    assert agent.running
    lab.engine.resume()
    assert agent.wait() == 0


def test_a_person_who_is_removed_at_one_node_is_out_at_all(lab: Sharing) -> None:
    """Her session ends; a node learns what was done while it was away, or the engine."""
    one, two = lab.nodes.values()
    ana = Person(one, "ana", (PLC, "load"))
    ana.server = two
    lab.until(lambda: users(two) == ["ana"], "ana")
    lab.everywhere("grants")
    with ana.control() as control:
        two.wait_until(lambda: PLC in str(control.ask("services")), PLC)
        control.start("load", device=PLC)
        one.control("user", "remove", "ana")
        assert code_of(control.web)[0] >= 4000
    two.wait_event("session-ended", user="ana", reason="revoked")
    one.control("user", "add", "bob")
    lab.until(lambda: users(two) == ["bob"], "bob")
    lab.engine.kill()
    two.control("user", "edit", "bob", "--note", "seen by nobody else")
    two.kill()
    one.control("user", "remove", "bob")
    two.start(wait=False)
    two.wait_until(two.ready, "readiness")
    two.control("user", "add", "zoe")
    lab.engine.start()
    lab.until(lambda: users(one) == users(two) == ["zoe"], "the same people")
    lab.engine.ask("FLUSHALL")
    one.control("user", "edit", "zoe", "--note", "after it was emptied")
    lab.everywhere("users")


class Guest(Person):
    """Made at one node, and at the other one all that somebody may have open: each is named by what it is."""

    def __init__(self, made: Server, at: Server, name: str) -> None:
        super().__init__(made, name, (PLC, "load"))
        at.wait_until(lambda: at.control("tokens", name)["tokens"] != [], name)
        at.wait_until(lambda: name in str(at.control("grants")), "grant")
        self.server = at
        self.browser = Browser(at)
        assert self.browser.ask("POST", "/login", {"token": self.token})[0] == 200
        self.stream = self.browser.open()
        self.stream.request("GET", "/api/v1/my/events?event=none", headers={"Cookie": self.browser.cookie})
        self.events = self.stream.getresponse()
        while not self.events.readline().startswith(b"data:"):
            pass
        self._open = contextlib.ExitStack()
        self.line = self._open.enter_context(self.control())
        at.wait_until(lambda: PLC in str(self.line.ask("services")), PLC)
        self.session, nonce = self._started()
        self.client = self._open.enter_context(self.raw(self.session, "load", nonce))
        self.client.send(HEAD.pack(7, 1 << 30))
        assert len(self.client.recv(timeout=20)) > 0

    def _started(self) -> tuple[str, str]:
        """A session; a node that is busy for a second has not answered, which is said."""
        while "error" in (answer := self.line.answer("start", device=PLC, services=["load"])):
            assert answer["error"]["word"] == "offline", answer
        return answer["ok"]["session"], answer["ok"]["nonce"]

    def cut(self) -> bool:
        """Once her stream has ended: whether it could not be taken for a whole one."""
        try:
            while True:
                self.client.recv(timeout=20)
        except ConnectionClosed as closed:
            return closed.rcvd is None or closed.rcvd.code >= 4000

    def close(self) -> None:
        """What is left of it."""
        self._open.close()
        self.stream.close()


@pytest.mark.parametrize("how", ["person", "token", "grant", "logout"])
def test_whoever_loses_a_right_at_one_node_loses_what_he_has_open_at_the_other(
    lab: Sharing, how: str
) -> None:
    """Login of a browser, stream of events, session and its client; a grant takes only what it allowed."""
    one, two = lab.nodes.values()
    eva = Guest(one, two, f"eva-{how}")
    if how == "person":
        one.control("user", "remove", eva.name)
    elif how == "token":
        one.control("token", "revoke", eva.name)
    elif how == "grant":
        one.control("grant", "remove", eva.grants[0])
    else:
        eva.browser.server = one  # her browser goes to another node
        lab.until(lambda: eva.browser.ask("GET", "/api/v1/my")[0] == 200, "login at both")
        assert eva.browser.ask("POST", "/logout")[0] == 204
        eva.browser.server = two
        eva.line.ask("end", session=eva.session)
    if how != "logout":
        two.wait_event("session-ended", user=eva.name, reason="revoked")
        assert eva.cut()
    if how in ("person", "token"):
        assert code_of(eva.line.web)[0] >= 4000
    if how == "grant":
        assert eva.browser.ask("GET", "/api/v1/my")[0] == 200
    else:
        assert eva.events.read().endswith(b'data: {"why":"logged-out"}\n\n')
        lab.until(lambda: eva.browser.ask("GET", "/api/v1/my")[0] == 401, "no login")
    eva.close()
    lab.until(lambda: two.control("sessions")["sessions"] == [], "no session")
    for each in users(one):
        one.control("user", "remove", each)
    lab.until(lambda: users(two) == [], "nobody")


def test_what_somebody_writes_there_counts_for_nothing(lab: Sharing) -> None:
    """It is counted and told at every node."""
    before = users(lab.nodes["one"])
    for name in ("a" * 64, "people:eve"):
        lab.engine.ask("HSET", "rt:revtunnel:revoked", name, '[1, 1, 0.0, ["people", "eve", []]]')
        lab.engine.ask("ZADD", "rt:revtunnel:shared", "9000000000000", name)
    for node in lab.nodes.values():
        node.wait_event("records-refused")
        (problem,) = node.control("status")["problems"]
        assert (
            problem == "records: 2 records in the engine were not sealed by our secret, and count for nothing"
        )
        assert users(node) == before


def test_nodes_of_several_secrets_share_nothing_and_say_so(tmp_path: Path) -> None:
    """One with a secret, one with another, one with none; with one file everywhere all are together."""
    with (
        laboratory(tmp_path) as found,
        contextlib.closing(NodesLab(found, tmp_path, 0, {})) as lab,
    ):
        files = {"one": tmp_path / "a", "two": tmp_path / "b"}
        for name, file in files.items():
            file.write_text(name * 12)
            os.chmod(file, 0o600)
            lab.nodes[name].write(cluster={"secret_file": file})
        lab.start()
        nodes = lab.nodes.values()
        for name, node in lab.nodes.items():
            node.control("user", "add", f"of-{name}")
        told = [str(node.wait_event("records-apart")["detail"]) for node in nodes]

        def said(node: Server) -> list[str]:
            return [each for each in node.control("status")["problems"] if each.startswith("secret_file: ")]

        shared = ": no people, grants, keys or tokens are shared"
        others = (
            "two with another secret_file, three without one",
            "one with another secret_file, three without one",
            "one two with a secret_file, this node without",
        )
        wanted = [[f"secret_file: {each}{shared}"] for each in others]
        lab.until(lambda: [*map(said, nodes)] == wanted, "words")
        assert all(text.endswith(shared) for text in told)
        seen = [{row["node"]: row["secret"] for row in node.control("nodes")["nodes"]} for node in nodes]
        assert seen == [
            {"one": "same", "two": "other", "three": "none"},
            {"one": "other", "two": "same", "three": "none"},
            {"one": "other", "two": "other", "three": "none"},
        ]
        for name, node in lab.nodes.items():
            assert users(node) == [f"of-{name}"]
        for node in nodes:
            node.write(cluster={"secret_file": files["one"]})
            node.kill()
        lab.engine.ask("FLUSHALL")
        for node in nodes:
            node.start(wait=False)
        for node in nodes:
            node.wait_until(node.ready, "readiness")
        everybody = [f"of-{name}" for name in sorted(lab.nodes)]
        lab.until(lambda: all(users(node) == everybody and not said(node) for node in nodes), "all of them")
