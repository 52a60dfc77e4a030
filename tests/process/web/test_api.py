"""The HTTP API over the real operator: what is where, who may, what is refused, pages, tags, repeats."""

import inspect
import json
import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest
from twisted.internet.defer import Deferred
from twisted.logger import globalLogPublisher

from revtunnel.daemons.operator import Operator
from revtunnel.daemons.own_operations import OWN
from revtunnel.process.admin.operation_form import PAGE, CallerRole, Kind, Operation
from revtunnel.process.web.api_routes import ROOT, ApiRoute, ApiRoutes
from revtunnel.process.web.series import Series
from revtunnel.systems.sessions.person_operator import PersonOperator
from revtunnel.trust.account_operator import AccountOperator
from tests.support.desk import ARGON2, Answer, Desk

ROUTES = ApiRoutes([*Operator.operations.values(), *OWN.values()]).all
NAMES = [each.operation.name for each in ROUTES]
SAMPLES: dict[Kind, Any] = {
    Kind.TEXT: "x",
    Kind.NUMBER: 1,
    Kind.YES_NO: True,
    Kind.LIST: ["x"],
    Kind.RAW: "eA==",
}
FORMS = {"[0-9a-f]{32}": "0" * 32, "[0-9]{6}": "123456"}


@pytest.fixture(scope="module")
def desk() -> Iterator[Desk]:
    """One for all who change nothing."""
    yield Desk()


@pytest.fixture
def fresh() -> Desk:
    """One's own."""
    return Desk()


def sample(field: Any) -> Any:
    """A value that is right for an argument."""
    if field.words:
        return field.words[0]
    return FORMS.get(field.form, SAMPLES[field.kind])


def place(route: ApiRoute) -> str:
    """A path that fits."""
    fields = {each.name: sample(each) for each in route.asked}
    return ROOT + re.sub(r"\{(\w+)\}", lambda found: quote(str(fields[found[1]]), ""), route.path)


def call(desk: Desk, route: ApiRoute, token: str, *lines: str) -> Answer:
    """Ask for it with all that it needs."""
    needed = [each for each in route.asked if not each.optional and each.name not in route.in_path]
    values = {each.name: sample(each) for each in needed}
    if route.has_body:
        return desk.ask(route.method, place(route), token, values, *lines)
    query = "&".join(f"{name}={quote(str(value))}" for name, value in values.items())
    return desk.ask(route.method, f"{place(route)}?{query}", token, None, *lines)


# ---- the table


def test_every_operation_is_somewhere_and_nothing_is_twice() -> None:
    """A method and a path each; what looks is GET, what changes is not."""
    places = [(each.method, re.sub(r"\{\w+\}", "{}", each.path)) for each in ROUTES]
    assert len(places) == len(set(places)) == len(Operator.operations) + len(OWN)
    for each in ROUTES:
        assert re.fullmatch(r"(/[a-z-]+|/\{[a-z_]+\})+", each.path), each.path
        arguments = {field.name for field in each.operation.arguments}
        assert set(each.in_path) <= arguments
        assert (each.method == "GET") == (
            each.operation.role is CallerRole.READER
            or each.operation.name in ("My", "MyTokens", "MyServices", "MySessions", "MyEvents")
        ), each


@pytest.mark.parametrize(
    "row", [row for row in OWN.values() if row.name != "MyEvents"], ids=lambda row: row.name
)
def test_what_people_have_for_themselves_has_methods_that_take_it(row: Operation) -> None:
    """With the same names, and it ends as it says."""
    part, _, name = row.method.partition(".")
    owner = {"account": AccountOperator, "sessions": PersonOperator, "charts": Series}[part]
    method = getattr(owner, name)
    assert set(inspect.signature(method).parameters) - {"self"} == {each.name for each in row.asked}
    raised = set(re.findall(r"^ +((?:[A-Z]\w+(?:, )?)+): ", inspect.getdoc(method) or "", re.MULTILINE))
    said = {each for names in raised for each in names.split(", ")} - {"Raises", "Args"}
    assert said <= {error.__name__ for error in row.errors}


# ---- who may


@pytest.mark.parametrize("name", [name for name in NAMES if name not in ("Watch", "MyEvents", "Drain")])
def test_roles_and_scopes(name: str) -> None:
    """A person has what is his, a reader looks, an administrator does; a token may be for less."""
    desk, route = Desk(), ROUTES[NAMES.index(name)]
    is_mine, looks = route.operation.role is CallerRole.NOBODY, route.method == "GET"
    tokens = {
        "person": (desk.person("ana"), is_mine),
        "reader": (desk.person("rita", "reader"), is_mine or looks),
        "admin, own": (desk.person("root", "admin", "own"), is_mine),
        "admin, read": (desk.person("root", "admin", "read"), looks),
        "admin": (desk.person("root", "admin"), True),
    }
    for who, (token, may) in tokens.items():
        answer = call(desk, route, token)
        denied = answer.status == 403 and answer.word == "denied" and "may not" in answer.row["detail"]
        assert denied is not may, (who, answer)
        assert answer.status != 500, (who, answer)


@pytest.mark.parametrize(
    ("method", "path", "wanted"),
    [
        ("GET", "devices", "ana may not look at devices that are here, were, or are known"),
        ("DELETE", "channels/plc-1/3", "ana may not end one channel"),
    ],
)
def test_a_refusal_is_a_sentence(desk: Desk, method: str, path: str, wanted: str) -> None:
    """Made of what the operation is for."""
    assert desk.ask(method, f"{ROOT}/{path}", desk.person("ana")).row["detail"] == wanted


@pytest.mark.parametrize("name", NAMES)
def test_h1_h2_h13_nobody_and_other_pages_get_nothing(desk: Desk, name: str) -> None:
    """No token, a wrong one, one in the query; a page of elsewhere with the right one; other methods."""
    route, admin = ROUTES[NAMES.index(name)], desk.person(f"a{NAMES.index(name)}", "admin")
    lacking = call(desk, route, "")
    assert (lacking.word, lacking.headers["www-authenticate"]) == ("login", "Bearer")
    assert call(desk, route, "rtuser1_" + "A" * 43).status == 401
    assert call(desk, route, admin[:-1]).status == 401
    assert desk.ask(route.method, f"{place(route)}?access_token={admin}").status == 401
    for line in ("Origin: https://evil.example", "Origin: null", "Sec-Fetch-Site: cross-site"):
        assert call(desk, route, admin, line).word == "origin"
    others = [] if "/record" in route.path else ["PATCH"]
    for method in ("TRACE", "OPTIONS", "BREW", *others):
        answer = desk.ask(method, place(route), admin)
        assert (answer.word, route.method in answer.headers["allow"].split(", ")) == ("method", True)


NOWHERE = """
    /api/v1 /api/v1/ /api/v2/status /api/v1/devices/ /api/v1//status /api/v1/status/x /api/x //api/v1/status
    /api/v1/devices/%ff/x
"""


@pytest.mark.parametrize("path", NOWHERE.split())
def test_what_is_not_there(desk: Desk, path: str) -> None:
    """Told to nobody in particular."""
    assert desk.ask("GET", path).status == 404


def test_nothing_is_there_where_the_listener_has_no_api() -> None:
    """As if it had never been."""
    desk = Desk(frozenset())
    for path in ("/api/", "/api/openapi.json", "/api/v1/status", "/", "/login"):
        assert desk.ask("GET", path, desk.person("root", "admin")).status == 404


# ---- arguments


@pytest.mark.parametrize(
    ("method", "path", "row"),
    [
        ("GET", "/devices?limit=x", None),
        ("GET", "/devices?limit=-1", None),
        ("GET", "/devices?limit=1&limit=2", None),
        ("GET", "/devices?limit=1e9", None),
        ("GET", "/devices?colour=red", None),
        ("GET", "/devices?serial=" + "x" * 81, None),
        ("GET", "/devices?" + "&".join(f"a{n}=1" for n in range(40)), None),
        ("GET", "/devices?after=%ff", None),
        ("GET", "/ports?after=x", None),
        ("GET", "/channels?after=plc-1/x", None),
        ("GET", "/devices/%00", None),
        ("GET", "/devices/%ff", None),
        ("GET", "/devices/" + "x" * 65, None),
        ("GET", "/users/ana/may?action=fly&serial=plc-1&service=web", None),
        ("DELETE", "/channels/plc-1/NaN", None),
        ("DELETE", "/channels/plc-1/1?serial=plc-2", None),
        ("POST", "/users", None),
        ("POST", "/users", b"{"),
        ("POST", "/users", b"[" * 30_000),
        ("POST", "/users", b'{"user":"ana","user":"ben"}'),
        ("POST", "/users", b'{"user":"ana","days":NaN}'),
        ("POST", "/users", ["ana"]),
        ("POST", "/users", {"user": 1}),
        ("POST", "/users", {"user": None}),
        ("POST", "/users", {"user": "ana", "days": True}),
        ("POST", "/users", {"user": "ana", "days": "1"}),
        ("POST", "/users", {"user": "ana", "days": 10**30}),
        ("POST", "/users", {"user": "ana", "role": "root"}),
        ("POST", "/users", {"user": "zoe", "note": "a\nb"}),
        ("POST", "/users", b'{"user":"ana","note":"\\ud800"}'),
        ("POST", "/users", {"user": "<b>"}),
        ("POST", "/users?user=ana", {}),
        ("PUT", "/users/root", {"user": "ben"}),
        ("POST", "/devices/plc-1/certificate", {"request": "%%%", "replace": False}),
        ("POST", "/devices/plc-1/key", {"replace": "yes"}),
        ("POST", "/grants", {"holder": "root", "device": "*", "services": "web"}),
        ("PUT", "/log-level", {"least": "loud"}),
        ("POST", "/drain", {"now": True}),
        ("POST", "/my/sessions", {"device": "plc-1", "services": []}),
    ],
)  # fmt: skip
def test_h3_h4_h5_h6_what_is_no_argument(desk: Desk, method: str, path: str, row: Any) -> None:
    """It is refused by its name, before anything is done."""
    token = desk.person("w", "admin")
    desk.people.revoke_token("w", None)
    token = desk.person("w", "admin")
    answer = desk.ask(method, ROOT + path, token, row)
    assert (answer.status, answer.word) == (400, "invalid")
    assert not desk.people.knows("ana2")
    assert not desk.switchboard.draining


def test_bodies(fresh: Desk) -> None:
    """JSON only, none where none is wanted, and no large one."""
    token = fresh.person("root", "admin")
    form = fresh.ask(
        "POST", f"{ROOT}/users", token, b"user=eve", "Content-Type: application/x-www-form-urlencoded"
    )
    assert form.word == "media-type"
    assert fresh.ask("DELETE", f"{ROOT}/users/ana", token, {"user": "ana"}).word == "invalid"
    assert fresh.ask("POST", f"{ROOT}/users", token, b" " * 65_537).word == "too-large"
    assert (
        fresh.ask(
            "POST", f"{ROOT}/users", token, {"user": "eve"}, "Content-Type: application/json; charset=utf-8"
        ).status
        == 200
    )


def test_names_that_look_like_paths_or_markup_stay_what_they_are(fresh: Desk) -> None:
    """Percent-encoded they are one part of a path; nothing is decoded twice."""
    token = fresh.person("root", "admin")
    for serial in ("../users", "a%2Fb", "<script>", "a/b"):
        answer = fresh.ask("GET", f"{ROOT}/sessions?serial={quote(serial, '')}", token)
        assert (answer.status, answer.row["rows"]) == (200, [])
        kicked = fresh.ask("POST", f"{ROOT}/devices/{quote(serial, '')}/kick", token, {"retry_after": 0})
        assert (kicked.status, kicked.row["detail"]) == (404, f"{serial} is not here")


# ---- what it does


def test_changes_are_the_operators_and_told_with_name_and_address(fresh: Desk, logged: list[Any]) -> None:
    """As at the admin socket; what somebody may not, too."""
    token, ana = fresh.person("root", "admin"), fresh.person("ana")
    answer = fresh.ask("POST", f"{ROOT}/devices/plc-1/kick", token, {"retry_after": 5})
    assert (answer.status, answer.body) == (204, b"")
    assert not fresh.operator.here("plc-1")
    fresh.ask("POST", f"{ROOT}/devices/plc-1/kick", token, {"retry_after": 5})
    fresh.ask("POST", f"{ROOT}/drain", ana)
    lines = [each for each in logged if each.get("event", "").startswith("admin-")]
    assert [(each["event"], each["by"], each["peer"], each["command"]) for each in lines] == [
        ("admin-command", "root", "192.0.2.7:4711", "kick"),
        ("admin-command", "root", "192.0.2.7:4711", "kick"),
        ("admin-refused", "ana", "192.0.2.7:4711", "drain"),
    ]
    assert [each.get("outcome") for each in lines] == ["done", "not-found", None]


@pytest.fixture
def logged() -> Iterator[list[Any]]:
    """Every event of the log."""
    found: list[Any] = []
    globalLogPublisher.addObserver(found.append)
    yield found
    globalLogPublisher.removeObserver(found.append)


def test_a_secret_is_in_its_answer_only(fresh: Desk) -> None:
    """Made once, and bytes are base64."""
    token = fresh.person("root", "admin")
    key = fresh.ask("POST", f"{ROOT}/devices/plc-9/key", token, {"replace": False}).row["key"]
    assert fresh.ledger.key_of("plc-9") is not None
    assert fresh.ask("POST", f"{ROOT}/devices/plc-9/key", token, {"replace": False}).status == 409
    assert key not in fresh.ask("GET", f"{ROOT}/enrolled", token).body.decode()


def test_pages_and_choices(fresh: Desk) -> None:
    """A cursor leads through all rows, also where some are chosen; * and ? are any, case does not count."""
    token = fresh.person("root", "admin")
    for number in range(2 * PAGE + 50):
        fresh.people.add_user(f"user-{number:03}", "odd" if number % 2 else "even", fresh.wall_clock())

    def walk(query: str) -> list[str]:
        found, after, pages = [], "", 0
        while True:
            answer = fresh.ask("GET", f"{ROOT}/users?{query}{after}", token).row
            found += [row["user"] for row in answer["rows"]]
            pages += 1
            if answer["next"] is None:
                return found
            after = f"&after={quote(answer['next'])}"
            assert pages < 100

    everybody = [f"user-{number:03}" for number in range(2 * PAGE + 50)]
    assert walk("") == ["ana", "ben", "root", *everybody]
    assert walk("limit=7&user=USER-*") == everybody
    assert walk("note=odd") == everybody[1::2]
    assert walk("user=user-00?&note=even&limit=2") == everybody[0:10:2]
    assert walk("role=admin") == ["root"]
    assert walk("user=[u]*") == []
    assert fresh.ask("GET", f"{ROOT}/users?user={'*a' * 39}*", token).row["rows"] == []


def test_tags(fresh: Desk) -> None:
    """What is as it was is not sent again; a record that is another is not changed unseen."""
    token, path = fresh.person("root", "admin"), f"{ROOT}/users/ana"
    read = fresh.ask("GET", path, token)
    tag = read.headers["etag"]
    again = fresh.ask("GET", path, token, None, f'If-None-Match: "x", {tag}')
    assert (again.status, again.body, again.headers["etag"]) == (304, b"", tag)
    head = fresh.ask("HEAD", path, token)
    assert (head.status, head.body, head.headers["content-length"]) == (200, b"", str(len(read.body)))
    assert fresh.ask("PUT", path, token, {"note": "x"}, f"If-Match: {tag}").status == 200
    other = fresh.ask("PUT", path, token, {"note": "y"}, f"If-Match: {tag}")
    assert (other.status, other.word) == (412, "changed")
    assert fresh.people.user("ana").note == "x"
    assert fresh.ask("DELETE", path, token, None, "If-Match: *").status == 200
    assert fresh.ask("DELETE", path, token, None, "If-Match: *").status == 404


def test_h7_asked_twice_with_a_key_it_is_done_once(fresh: Desk) -> None:
    """The same answer; of another person, with another request, it is something else."""
    token, line = fresh.person("root", "admin"), "Idempotency-Key: 7f"
    path, row = f"{ROOT}/users/ana/tokens", {"note": "laptop"}
    first = fresh.ask("POST", path, token, row, line)
    again = fresh.ask("POST", path, token, row, line)
    assert (again.status, again.body) == (200, first.body)
    assert ("idempotency-replayed" in first.headers, again.headers["idempotency-replayed"]) == (False, "true")
    assert len(fresh.people.tokens("ana")) == 2
    assert fresh.ask("POST", path, token, {"note": "desk"}, line).word == "key-reused"
    assert fresh.ask("POST", path, fresh.person("eve", "admin"), row, line).body != first.body
    assert fresh.ask("POST", path, token, row, "Idempotency-Key: a b").word == "invalid"
    assert fresh.ask("POST", f"{ROOT}/users", token, {"user": "X"}, "Idempotency-Key: 8").status == 400
    assert fresh.ask("POST", f"{ROOT}/users", token, {"user": "x"}, "Idempotency-Key: 8").status == 200


def test_a_bug_is_logged_and_told_without_its_text(fresh: Desk, logged: list[Any]) -> None:
    """500 with one word."""
    fresh.operator.status = lambda: 1 / 0  # type: ignore[assignment, method-assign]
    answer = fresh.ask("GET", f"{ROOT}/status", fresh.person("root", "admin"))
    assert (answer.status, answer.word) == (500, "internal")
    assert b"division" not in answer.body
    assert [each["log_failure"].type for each in logged if "log_failure" in each] == [ZeroDivisionError]


def test_h16_who_hangs_up_before_the_answer(fresh: Desk) -> None:
    """What was begun goes on; nobody is told, and nothing is logged as a bug."""
    waits: Deferred[Any] = Deferred()
    fresh.operator.on_reload = lambda: waits
    token = fresh.person("root", "admin")
    caller = fresh.open("POST", f"{ROOT}/reload", f"Authorization: Bearer {token}")
    fresh.hang_up()
    waits.callback({"changed": [], "needs_restart": [], "errors": []})
    assert caller.value() == b""


# ---- what it says of itself


def test_the_description_has_everything_and_every_reference(desk: Desk) -> None:
    """All routes, for programs and on the page for people, which has nothing of elsewhere."""
    described = json.loads(desk.ask("GET", "/api/openapi.json").body)
    found = {(method.upper(), path) for path, row in described["paths"].items() for method in row}
    beside = {("POST", each) for each in ("/login", "/logout", "/first") if ARGON2}
    beside |= {("POST", each) for each in ("/invitation", "/invitation-page") if ARGON2}
    beside |= {("GET", "/login")} if ARGON2 else set()
    assert found == {(each.method, ROOT + each.path) for each in ROUTES} | beside
    names = [row["operationId"] for methods in described["paths"].values() for row in methods.values()]
    assert len(names) == len(set(names))
    page = desk.ask("GET", "/api/")
    assert page.headers["content-type"].startswith("text/html")
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert page.body.count(b"<section>") == len(ROUTES) + len(beside)
    assert not re.search(rb"""(?:src|href)=["'](?!/)""", page.body)
    assert desk.ask("GET", "/api").headers["location"] == "/api/"
    assert desk.ask("POST", "/api/openapi.json").word == "method"


# ---- the connection


@pytest.mark.parametrize(
    "lines",
    [
        ("Content-Length: 2", "Content-Length: 3"),
        ("Content-Length: 2", "Transfer-Encoding: chunked"),
        ("Content-Length: -1",),
        ("Content-Length: x",),
        ("Transfer-Encoding: gzip",),
        ("no colon",),
        ("x: y\r\n z",),
        tuple(f"x{number}: y" for number in range(600)),
    ],
)
def test_h14_heads_that_two_readers_read_differently(desk: Desk, lines: tuple[str, ...]) -> None:
    """Refused and ended, or read as one request with one answer; never a bug, never a second request."""
    behind = b"GET /api/v1/status HTTP/1.1\r\nHost: gate.example\r\n\r\n"
    caller = desk.open("POST", f"{ROOT}/users", *lines, body=b"{}" + behind)
    desk.pump()
    answer = caller.value()
    assert answer.count(b"HTTP/1.1 ") <= 1
    assert not answer or int(answer.split()[1]) in (400, 401)
    desk.hang_up()


def test_h14_h15_bodies_that_grow_or_never_end(fresh: Desk) -> None:
    """413 for chunks without end; ended after its time, however often a byte comes."""
    token = f"Authorization: Bearer {fresh.person('root', 'admin')}"
    lines = token, "Content-Type: application/json", "Transfer-Encoding: chunked"
    caller = fresh.open("POST", f"{ROOT}/users", *lines)
    for _ in range(200):
        if fresh.last.transport.disconnecting or caller.value():
            break
        fresh.last.dataReceived(b"1000\r\n" + b" " * 4096 + b"\r\n")
    assert caller.value().startswith(b"HTTP/1.1 413 ")
    slow = fresh.open("POST", f"{ROOT}/users", *lines[:2], "Content-Length: 100")
    for _ in range(9):
        fresh.advance(1.0)
        fresh.last.dataReceived(b" ")
    assert not slow.disconnecting
    fresh.advance(1.5)
    assert slow.disconnecting
    assert slow.value() == b""
