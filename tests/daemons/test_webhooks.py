"""Webhooks: which facts, in which order, tried again, dead, dropped; what outlives the process."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock

from revtunnel.daemons import webhook_delivery
from revtunnel.daemons.server_reading import load_server
from revtunnel.daemons.webhook_delivery import reach_private, reach_public, signature
from revtunnel.daemons.webhook_settings import WebhookSettings, read_secrets
from revtunnel.daemons.webhooks import LARGEST, Webhooks
from revtunnel.ground.errors import SettingsError
from revtunnel.ground.facts import Fact, LinkStalled, ServerState, Trouble, WakeEnded
from revtunnel.ground.retries import Retries
from revtunnel.process.admin.refusals import Conflict, NotFound
from revtunnel.settings.inifile import Surroundings
from revtunnel.state.ledger import FILE_NAME, SqliteLedger

NOON = 1_800_000_000.0
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


def hook(*facts: str, name: str = "chat", **more: Any) -> WebhookSettings:
    """The settings of one."""
    url = "https://chat.example/T/s3cret"
    return WebhookSettings(name=name, url=url, secret_file="/none", facts=facts, **more)


HOOK = hook("state", "@warn")


@dataclass(frozen=True)
class Many(Fact):
    """A fact as large as one likes."""

    word = "many"
    text: str


class Post:
    """Whoever is posted to: ``says`` is what comes of each try; a Deferred is waited for."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.got: list[tuple[str, str, dict[str, Any]]] = []
        self.says: Any = ""
        monkeypatch.setattr(webhook_delivery, "deliver", self._deliver)

    async def _deliver(
        self, reactor: Any, settings: WebhookSettings, id: str, body: bytes, now: float
    ) -> str:
        self.got.append((settings.name, id, json.loads(body)))
        found: str = await self.says if isinstance(self.says, Deferred) else await succeed(self.says)
        return found

    @property
    def events(self) -> list[str]:
        """What came, in words."""
        return [str(row["data"].get("detail", row["type"])) for _, _, row in self.got]


class Site:
    """A server's webhooks over a real state file."""

    def __init__(self, path: Path, *hooks: WebhookSettings) -> None:
        self.clock = Clock()
        self.facts: list[Fact] = []
        self.ledger = SqliteLedger(str(path / FILE_NAME), lambda: NOON + self.clock.seconds())
        self.retries = Retries(self.clock, self._report, lambda: 0.0)
        self.hooks = Webhooks(self.clock, self.ledger, self.retries, self._report, lambda size: bytes(size))
        self.hooks.take(hooks or (HOOK,), "gate")

    def _report(self, fact: Fact) -> None:
        self.facts.append(fact)
        self.hooks.told(fact)

    def tell(self, *details: str) -> None:
        """Things happened."""
        for each in details:
            self._report(ServerState("x", each))

    def wait(self, seconds: float = 0.0) -> None:
        """Time goes by, in steps that no timer falls between."""
        self.clock.pump([0.0, *[1.0] * int(seconds)])

    def row(self, hook: str = "chat") -> dict[str, Any]:
        """Of a hook."""
        return next(row for row in self.hooks.rows()[0] if row["hook"] == hook)

    def kill(self) -> None:
        """As kill -9: nobody stops anything."""
        self.ledger._file.close()


@pytest.fixture
def post(monkeypatch: pytest.MonkeyPatch) -> Post:
    return Post(monkeypatch)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    found = Site(tmp_path)
    yield found
    found.hooks.stop()
    found.ledger.close()


def test_chosen_facts_are_posted_in_order(site: Site, post: Post) -> None:
    """By name, by pattern, by how loud; not in the call that told of it; with who says so, and when."""
    site.tell("a", "b")
    site._report(WakeEnded("plc-7", "done", "not chosen", 1.0))
    site._report(LinkStalled('plc-7\r\nwebhook-id: "x"', 1, 2))
    assert post.got == []
    site.wait()
    assert [row["type"] for _, _, row in post.got] == ["state", "state", "link-stalled"]
    _, id, row = post.got[0]
    assert row == {
        "type": "state",
        "timestamp": "2027-01-15T08:00:00.000Z",
        "server": "gate",
        "data": {"state": "x", "detail": "a"},
    }
    assert id == f"msg_{1:010x}{'00' * 8}"
    assert (site.row()["delivered"], site.row()["waiting"], site.row()["to"]) == (
        3,
        0,
        "https://chat.example",
    )
    assert site.ledger.select("SELECT * FROM webhooks") == []
    site.hooks.take([hook("wake-*")], "gate")
    site.tell("c")
    site._report(WakeEnded("plc-7", "done", "d", 1.0))
    site.wait()
    assert post.events[3:] == ["d"]


def test_what_fails_is_tried_again_and_nothing_overtakes_it(site: Site, post: Post) -> None:
    """With a longer wait each time; told once, in problems as long as it lasts; facts of it feed no hook."""
    post.says = "it answered 503"
    site.tell("a", "b")
    site.wait()
    site.tell("c")
    site.wait(60.0)
    assert post.events == ["a"] * 5  # at once, and after 2, 4, 8 and 16 s more
    assert len({id for _, id, _ in post.got}) == 1
    assert site.retries.problems == {"webhook chat": "it answered 503"}
    row = site.row()
    assert (row["state"], row["problem"], row["waiting"]) == ("failing", "it answered 503", 3)
    told = [fact for fact in site.facts if isinstance(fact, Trouble)]
    assert told == [Trouble("webhook chat", "it answered 503")]
    post.says = ""
    site.wait(60.0)
    assert post.events[5:] == ["a", "b", "c"]
    assert (site.retries.problems, site.row()["state"], site.row()["failed"]) == ({}, "well", 5)


def test_one_hook_waits_for_no_other(tmp_path: Path, post: Post) -> None:
    """Nor for one whose receiver says nothing."""
    site = Site(tmp_path, HOOK, hook("*", name="other"))
    silent: Deferred[str] = Deferred()
    post.says = silent
    site.tell("a")
    site.wait()
    post.says = ""
    site.hooks.take([HOOK], "gate")
    assert site.row("other")["state"] == "gone"
    silent.callback("")
    site.wait()
    assert sorted(name for name, _, _ in post.got) == ["chat", "other"]
    site.kill()


def test_the_dead_are_kept_shown_redelivered_and_dropped(tmp_path: Path, post: Post) -> None:
    """Once they are too old, and a try has failed; the oldest makes room; again behind what waits."""
    strict = hook("state", patience=10.0, dead=2, queue=3)
    site = Site(tmp_path, strict)
    post.says = "no"
    site.tell("a", "b", "c")
    site.wait(300.0)
    assert (site.row()["waiting"], site.row()["dead"]) == (0, 2)
    assert site.hooks.counts()["chat"]["dead"] == 3
    assert [fact.what for fact in site.facts if fact.word == "webhook-dead"] == ["state"] * 3  # type: ignore[attr-defined]
    rows, more = site.hooks.dead("chat", "", 1)
    assert (rows[0]["event"], rows[0]["why"], rows[0]["made"], more) == (
        "state",
        "no",
        "2027-01-15T08:00:00.000Z",
        rows[0]["id"],
    )
    (last,), more = site.hooks.dead("chat", rows[0]["id"], 1)
    assert more is None
    site.kill()
    site = Site(tmp_path, strict)
    assert site.row()["dead"] == 2
    post.says, post.got = "", []
    site.tell("d")
    assert site.hooks.redeliver("chat", last["id"]) == 1
    site.wait()
    assert post.events == ["d", "c"] and post.got[1][1] == last["id"]
    assert site.hooks.drop("chat") == 1
    assert site.row()["dead"] == 0 and site.ledger.select("SELECT * FROM webhooks") == []
    for call in (site.hooks.redeliver, site.hooks.drop):
        with pytest.raises(NotFound):
            call("chat", "msg_x")
        with pytest.raises(NotFound):
            call("other")
    site.kill()


def test_a_queue_has_an_end(tmp_path: Path, post: Post) -> None:
    """What comes then is counted, and told once; too large a body likewise."""
    site = Site(tmp_path, hook("*", queue=2))
    post.says = "no"
    site.tell("a", "b", "c", "d")
    assert (site.row()["waiting"], site.row()["dropped"]) == (2, 2)
    with pytest.raises(Conflict):
        site.hooks.test("chat")
    post.says = ""
    site.wait()
    site._report(Many("x" * LARGEST))
    assert site.row()["dropped"] == 4
    assert [fact.row() for fact in site.facts if fact.word == "webhook-dropped"] == [
        {"event": "webhook-dropped", "hook": "chat", "waiting": 2}
    ]
    site.hooks.test("chat")
    site.wait()
    assert [row["type"] for _, _, row in post.got][-1] == "webhook-test"
    site.kill()


def test_what_was_accepted_outlives_a_killed_process(tmp_path: Path, post: Post) -> None:
    """At least once, in order, with the same id where nobody knows whether it came."""
    site = Site(tmp_path)
    post.says = Deferred()
    site.tell("a", "b")
    site.wait()
    assert post.events == ["a"]
    site.kill()
    post.says = ""
    site = Site(tmp_path)
    site.tell("c")
    site.wait()
    assert post.events == ["a", "a", "b", "c"]
    assert post.got[0][1] == post.got[1][1] and len({id for _, id, _ in post.got}) == 3
    site.kill()


def test_a_row_that_makes_no_sense_is_skipped(tmp_path: Path, post: Post) -> None:
    """And told; nothing of it comes into a header."""
    site = Site(tmp_path)
    rows = [
        (1, "chat", "msg_1\r\nX: y", "state", b"{}", NOON, ""),
        (2, "chat", f"msg_{'0' * 26}", "", "x", NOON, ""),
    ]
    site.ledger.change([("webhooks", row[0], row) for row in rows])
    site.kill()
    site = Site(tmp_path)
    site.wait()
    assert (post.got, len(site.ledger.warnings)) == ([], 2)
    site.kill()


def test_a_section_that_is_gone_keeps_what_waits(tmp_path: Path, post: Post) -> None:
    """Until it is back, or an operator drops it; nothing is sent meanwhile."""
    site = Site(tmp_path)
    post.says = "no"
    site.tell("a")
    site.wait()
    site.hooks.take((), "gate")
    site.tell("b")
    site.wait(100.0)
    assert (post.events, site.row()["state"], site.retries.problems) == (["a"], "gone", {})
    with pytest.raises(Conflict):
        site.hooks.test("chat")
    with pytest.raises(Conflict):
        site.hooks.redeliver("chat")
    post.says = ""
    site.hooks.take([HOOK], "gate")
    site.wait()
    assert post.events == ["a", "a"]
    post.says = "no"
    site.tell("c")
    site.wait()
    site.hooks.take((), "gate")
    assert site.hooks.drop("chat") == 1
    assert site.hooks.rows() == ([], None)
    site.kill()


def test_a_stop_ends_what_is_on_its_way(site: Site, post: Post) -> None:
    """It is posted again by the next start."""
    cancelled: list[bool] = []
    post.says = Deferred(lambda _: cancelled.append(True))
    site.tell("a")
    site.wait()
    site.hooks.stop()
    site.wait(100.0)
    site.tell("too late")
    assert (cancelled, site.row()["waiting"], site.row()["failed"]) == ([True], 1, 0)


def test_signatures_are_those_of_the_specification(tmp_path: Path) -> None:
    """Its own example; an older secret signs too, behind it."""
    path = tmp_path / "secret"
    path.write_text(f"{SECRET}\n")
    secrets = read_secrets(str(path))
    body = b'{"test": 2432232314}'
    wanted = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
    assert signature(secrets, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, body) == wanted
    path.write_text(f"{SECRET}\nwhsec_{'A' * 32}\n")
    both = signature(read_secrets(str(path)), "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, body)
    assert both.startswith(f"{wanted} v1,") and len(both.split()) == 2


PUBLIC = ("8.8.8.8", "2606:4700::1111")
PRIVATE = (
    *("127.0.0.1", "10.0.0.1", "192.168.1.1", "172.16.0.1", "100.64.0.1"),
    *("::1", "fd00::1", "::ffff:10.0.0.1"),
)
NEVER = (
    *("169.254.169.254", "168.63.129.16", "100.100.100.200", "0.0.0.0", "224.0.0.1", "::", "fd00:ec2::254"),
    *("fe80::1%eth0", "::ffff:169.254.169.254", "64:ff9b::a9fe:a9fe", "2002:a9fe:a9fe::1"),
)
EVERY = (*PUBLIC, *PRIVATE, *NEVER)


def test_which_addresses_a_hook_may_be_at(monkeypatch: pytest.MonkeyPatch) -> None:
    """Public ones; private ones where it says so; where clouds answer never, however it is written."""

    async def connect(reactor: Any, host: str, port: int) -> Any:
        return host

    monkeypatch.setattr(webhook_delivery, "connect", connect)

    def reached(reach: Any, host: str) -> bool:
        found: list[Any] = []
        Deferred.fromCoroutine(reach(None, host, 443)).addBoth(found.append)
        return bool(found[0] == host)

    assert [host for host in EVERY if reached(reach_public, host)] == [*PUBLIC]
    assert [host for host in EVERY if reached(reach_private, host)] == [
        *PUBLIC,
        *PRIVATE,
    ]


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ("url = http://chat.example/x", "is another machine, https:// wanted"),
        ("url = https://me:pw@chat.example/x", "without a user"),
        ("url = ftp://chat.example/", "https://..., or http://... on this machine wanted"),
        ("facts =", "none are named"),
        ("facts = @loud", "@warn wanted"),
        ("secret_file = none", "a file wanted"),
        ("secret_file = /nowhere/at/all", "No such file"),
        ("secret_file = {short}", "base64 of 24 to 64 bytes"),
        ("secret_file = {open}", "0600 wanted"),
    ],
)
def test_settings_that_are_wrong(tmp_path: Path, lines: str, said: str) -> None:
    """Each with its line, before anything is sent; a secret is never repeated."""
    files = {"short": "whsec_MfKQ9r8GKYqrTwj=", "open": SECRET, "good": SECRET}
    for name, text in files.items():
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o644 if name == "open" else 0o600)
        files[name] = str(tmp_path / name)
    known = {"url": "https://chat.example/x", "facts": "@warn", "secret_file": files["good"]}
    key, _, value = lines.format(**files).partition("=")
    known[key.strip()] = value.strip()
    text = "\n".join(f"{key} = {value}" for key, value in known.items())
    (tmp_path / "r.ini").write_text(f"[webhook chat]\n{text}\n")
    with pytest.raises(SettingsError) as error:
        load_server(str(tmp_path / "r.ini"), None, Surroundings({}, False, "/home/x", "gate"))
    assert len(error.value.errors) == 1 and said in error.value.errors[0]
    assert "r.ini:" in error.value.errors[0] and "MfKQ9r8GKYqrTwj" not in error.value.errors[0]
