"""revtunnelctl for people, grants, mutes and the audit file, over the real door."""

import json
import re
from pathlib import Path

import pytest

from revtunnel.ctl.ctl import main
from revtunnel.fleet.device_records import DeviceRecord, DeviceRecords
from revtunnel.ground.limits import AuditLimits
from revtunnel.state.audit_file import AuditFile, Sync
from revtunnel.state.audit_records import RightsChanged
from revtunnel.state.session_audit import SessionAudit
from tests.support.room import NOON, Room

Capture = pytest.CaptureFixture[str]


def test_a_token_stands_alone_on_standard_output(capsys: Capture) -> None:
    """It opens what it says; what it is called by is a remark beside it, and no listing shows it again."""
    room = Room()
    assert room.ctl("user", "add", "ana", "--note", "plant 3") == 0
    captured = capsys.readouterr()
    login = room.people.log_in(captured.out.strip(), NOON)
    assert (login.user, captured.out.count("\n")) == ("ana", 1)
    assert captured.err == (
        f"revtunnelctl: token {login.token} of ana, good until 2027-04-15T08:00:00Z; it is shown here only\n"
    )
    assert room.ctl("token", "new", "ana", "--days", "7", "--json") == 0
    made = json.loads(capsys.readouterr().out)
    assert (made["user"], made["until"]) == ("ana", "2027-01-22T08:00:00Z")
    room.ctl("users")
    room.ctl("tokens", "ana")
    shown = capsys.readouterr().out
    assert re.search(r"^ana +plant 3 +- +2 +0 ", shown, re.MULTILINE)
    assert made["token"] not in shown and made["id"] in shown


def test_tokens_are_revoked_one_or_all(capsys: Capture) -> None:
    """By id; without one, all of the user's. A user that is removed is nobody."""
    room = Room()
    room.ctl("user", "add", "ana")
    room.ctl("token", "new", "ana")
    first, second = room.people.tokens("ana")
    assert room.ctl("token", "revoke", "ana", first.id) == 0
    assert room.people.tokens("ana") == [second]
    assert room.ctl("token", "revoke", "ana", first.id) == 1
    assert room.ctl("token", "revoke", "ana") == 0
    assert room.people.tokens("ana") == []
    assert room.ctl("user", "remove", "ana") == 0
    assert room.ctl("user", "remove", "ana") == 1
    assert room.ctl("user", "add", "Ana") == 64
    assert room.ctl("user", "add", "ana", "--days", "400") == 64
    assert "no user 'ana'" in capsys.readouterr().err


def test_groups_and_members(capsys: Capture) -> None:
    """Made, filled, listed, emptied, taken away."""
    room = Room()
    room.ctl("user", "add", "ana")
    assert room.ctl("group", "add", "night", "--note", "the late shift") == 0
    assert room.ctl("member", "add", "night", "ana") == 0
    capsys.readouterr()
    assert room.ctl("groups") == 0
    assert capsys.readouterr().out.splitlines()[1].split()[:6] == ["night", "the", "late", "shift", "1", "0"]
    assert room.ctl("members", "night") == 0
    assert capsys.readouterr().out.splitlines()[1].split()[:3] == ["ana", "-", "night"]
    assert room.ctl("member", "remove", "night", "ana") == 0
    assert room.ctl("member", "remove", "night", "ana") == 1
    assert room.ctl("group", "remove", "night") == 0
    assert room.ctl("members", "night") == 1


def test_grants_as_they_are_written(capsys: Capture) -> None:
    """Given with services, actions and times; listed; asked about; taken away by id."""
    room = Room()
    room.ctl("user", "add", "ana")
    words = (
        "grant",
        "ana",
        "plc-*",
        "ssh,http,vnc",
        "--actions",
        "list,start,share",
        "--until",
        "2027-12-31",
    )
    assert room.ctl(*words, "--from", "2027-01-01T06:00Z") == 0
    (grant,) = room.grants.of("ana")
    assert (grant.device, grant.services, grant.by) == ("plc-*", ("ssh", "http", "vnc"), "root")
    assert sorted(action.value for action in grant.actions) == ["list", "share", "start"]
    capsys.readouterr()
    assert room.ctl("grants") == 0
    line = capsys.readouterr().out.splitlines()[1]
    times = "2027-01-01T06:00:00Z +2028-01-01T00:00:00Z"
    wanted = rf"{grant.id} +ana +plc-\* +ssh, http, vnc +list, start, share +{times} +in-force"
    assert re.fullmatch(wanted, line)
    assert room.ctl("grant", "ana", "plc-*", "ssh", "--actions", "fly") == 64
    assert room.ctl("grant", "ben", "plc-*", "ssh") == 1
    assert room.ctl("grant", "remove", grant.id) == 0
    assert room.ctl("--json", "grant", "remove", grant.id) == 1
    assert room.grants.of("ana") == []


def test_more_grants_than_a_page_are_all_listed(capsys: Capture) -> None:
    """The cursor has holder and id."""
    room = Room()
    for name in ("ana", "ben"):
        room.ctl("user", "add", name)
        for number in range(150):
            room.operator.people.grant_add(name, f"plc-{number}", ["ssh"], "root")
    capsys.readouterr()
    room.ctl("grants", "--json")
    rows = json.loads(capsys.readouterr().out)["grants"]
    assert len({row["grant"] for row in rows}) == len(rows) == 300


def test_may_says_by_which_grant_or_why_not(capsys: Capture) -> None:
    """Status 0 or 1; labels are those of the device's record, and those that are named."""
    room = Room()
    room.ctl("user", "add", "ana")
    room.ctl("grant", "ana", "label=line=3", "ssh")
    (grant,) = room.grants.of("ana")
    capsys.readouterr()
    assert room.ctl("may", "ana", "start", "plc-7/ssh") == 1
    out = capsys.readouterr().out.splitlines()
    assert out[0] == "ana may not start plc-7/ssh: no-grant"
    assert out[-1].split()[0] == grant.id and out[-1].endswith(" device")
    assert room.ctl("may", "ana", "start", "plc-7/ssh", "--label", "line=3,hall-b") == 0
    room.switchboard.access.records = DeviceRecords({"plc-7": DeviceRecord(labels=("line=3",))})
    capsys.readouterr()
    assert room.ctl("may", "ana", "start", "plc-7/ssh") == 0
    assert capsys.readouterr().out.splitlines()[0] == f"ana may start plc-7/ssh: grant {grant.id}"
    assert room.ctl("device", "plc-7") == 0
    assert "labels:   line=3\n" in capsys.readouterr().out


def test_a_device_is_muted_and_shown_so(capsys: Capture) -> None:
    """In its row, in the listing of devices, in a listing of its own, and in the status."""
    room = Room()
    assert room.ctl("mute", "plc-1", "--why", "a press is being mended") == 0
    capsys.readouterr()
    room.ctl("devices")
    assert "plc-1   online, muted  " in capsys.readouterr().out
    room.ctl("device", "plc-1")
    assert "muted:    a press is being mended\n" in capsys.readouterr().out
    room.ctl("muted")
    assert re.search(r"^plc-1 +a press is being mended +root ", capsys.readouterr().out, re.MULTILINE)
    assert room.operator.status()["muted"] == 1
    assert room.ctl("unmute", "plc-1") == 0
    assert room.ctl("unmute", "plc-1") == 1
    assert room.operator.devices()[0][0]["muted"] == ""


def test_readers_may_look_at_people_and_change_nothing(capsys: Capture) -> None:
    """As with everything else."""
    room = Room()
    room.ctl("user", "add", "ana")
    room.caller = room.caller._replace(uid=1003, name="rita")
    for words in (["users"], ["grants"], ["muted"], ["tokens", "ana"], ["audit", "head"]):
        assert room.ctl(*words) == 0
    for words in (
        ["user", "add", "ben"],
        ["token", "new", "ana"],
        ["grant", "ana", "*", "ssh"],
        ["mute", "x"],
    ):
        assert room.ctl(*words) == 77


def test_the_words_of_one_command_are_not_another(capsys: Capture) -> None:
    """Half a command, and one with too few words, is wrong usage."""
    for words in (
        ["user"],
        ["token", "ana"],
        ["grant"],
        ["grant", "ana"],
        ["grant", "remove"],
        ["may", "ana"],
    ):
        with pytest.raises(SystemExit) as end:
            main(list(words))
        assert end.value.code == 64


# ---- the audit file


def ended(*words: str) -> int:
    """The exit status of the whole command."""
    with pytest.raises(SystemExit) as end:
        main(list(words))
    return int(end.value.code or 0)


def written(path: Path, count: int) -> AuditFile:
    """An audit file with so many records of ours."""
    file = AuditFile(str(path), "a test", AuditLimits(), Sync.NEVER, lambda: NOON)
    for number in range(count):
        file.append(RightsChanged("user-added", f"user-{number}", "root"))
    return file


def test_an_audit_file_is_verified_without_a_server(capsys: Capture, tmp_path: Path) -> None:
    """0 and how many, or 1 and the first line that is not as it was."""
    path = tmp_path / "audit.jsonl"
    written(path, 5).close()
    assert ended("audit", "verify", str(path)) == 0
    assert re.fullmatch(r"7 records, 1 to 7, hash [0-9a-f]{64}: unbroken\n", capsys.readouterr().out)
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join([*lines[:2], lines[2].replace("user-1", "user-9"), *lines[3:]]))
    assert ended("audit", "verify", str(path)) == 1
    assert capsys.readouterr().out == f"{path}:3: was changed: it does not match its own hash\n"
    path.write_text("".join([*lines[:2], *lines[3:]]))
    assert ended("audit", "verify", str(path), "--json") == 1
    row = json.loads(capsys.readouterr().out)
    assert (row["ok"], row["seq"]) == (False, 2)
    assert row["fault"].endswith(":3: record 3 is missing before record 4")


def test_a_head_that_was_kept_elsewhere_finds_what_was_cut_off(capsys: Capture, tmp_path: Path) -> None:
    """What ``audit head`` prints is what ``audit verify`` wants."""
    path = tmp_path / "audit.jsonl"
    room = Room()
    room.operator.audit = SessionAudit(room.clock, written(path, 5), room.reporter, room.wall)
    assert room.ctl("audit", "head") == 0
    head = capsys.readouterr().out.strip()
    assert head.startswith("6:")
    assert ended("audit", "verify", str(path), "--head", head) == 0
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:4]))
    assert ended("audit", "verify", str(path)) == 0
    assert ended("audit", "verify", str(path), "--head", head) == 1
    assert "record 6, whose hash was kept elsewhere, is not here" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "status"), [(["/nowhere/audit.jsonl"], 1), (["/nowhere", "--head", "7"], 64), (["/"], 1)]
)
def test_what_cannot_be_verified_is_said(capsys: Capture, words: list[str], status: int) -> None:
    """No file, no plain file: 1; no head: wrong usage; and nothing that looks like a result."""
    assert ended("audit", "verify", *words) == status
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("revtunnelctl: ")


def test_the_audit_file_is_that_of_the_settings(capsys: Capture, tmp_path: Path) -> None:
    """Where none is named; where the settings have none, one has to be."""
    path, settings = tmp_path / "other.jsonl", tmp_path / "revtunnel.ini"
    written(path, 1).close()
    settings.write_text(f"[audit]\nfile = {path}\n")
    assert ended("--config", str(settings), "audit", "verify") == 0
    assert capsys.readouterr().out.startswith("3 records")
    settings.write_text("[audit]\nfile = none\n")
    assert ended("--config", str(settings), "audit", "verify") == 1
    assert "FILE wanted" in capsys.readouterr().err
