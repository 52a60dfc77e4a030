"""The table of settings: it is complete, its defaults are sound, what is printed from it is what we ship."""

import contextlib
import dataclasses
import functools
import pickle
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from revtunnel.daemons.schema import SECTIONS, find
from revtunnel.ground.declared import Key, keys_of
from revtunnel.ground.limits import (
    AgentLimits,
    AuditLimits,
    CameoLimits,
    CccpLimits,
    DataLimits,
    EdgeLimits,
    EmoLimits,
    EnrolmentLimits,
    FleetLimits,
    LinkLimits,
    PenaltyLimits,
    RelayLimits,
    ServerLimits,
)
from revtunnel.ground.targets import Offer, Target
from revtunnel.settings.printing import as_ini, as_man, as_rst
from revtunnel.settings.sections import Section

ROOT = Path(__file__).parents[2]
# fields of LinkLimits that are no settings: the scheduler's own measures
FIXED = {
    "violations",
    "frame",
    "lone_frame",
    "smallest_quantum",
    "largest_quantum",
    "frames_a_turn",
    "time_a_turn",
    "late_frames",
    "idle_frames",
}
KEYS = [(section, key) for section in SECTIONS for key in section.keys]
NAMES = [f"{section.name}.{key.name}" for section, key in KEYS]
PRINTED = {
    "--ini": (as_ini, ROOT / "etc/revtunnel.ini"),
    "--man": (as_man, ROOT / "man/revtunnel.ini.5"),
    "--rst": (as_rst, ROOT / "docs/settings.rst"),
}


@functools.cache
def printed(option: str) -> str:
    """What the table prints for it; once for all keys."""
    return PRINTED[option][0](SECTIONS)


@pytest.mark.parametrize("option", PRINTED)
def test_shipped_files_are_what_the_table_prints(option: str) -> None:
    """Nobody edits them by hand; after a change of the table they are printed again."""
    printer, path = PRINTED[option]

    assert path.read_text("utf-8") == printer(SECTIONS), (
        f"python -m revtunnel.daemons.schema {option} > {path.name}"
    )


@pytest.mark.parametrize(("section", "key"), KEYS, ids=NAMES)
def test_key_has_type_default_unit_limit_and_meaning(section: Section, key: Key) -> None:
    """Every key says all of it, its default is a value of its own type, and names are plain words."""
    assert re.fullmatch("[a-z_]+", key.name)
    assert key.kind.unit and key.kind.limit and key.text
    assert key.kind.read(key.default) == key.value


@pytest.mark.parametrize(("section", "key"), KEYS, ids=NAMES)
@pytest.mark.parametrize("option", PRINTED)
def test_key_is_documented_with_default_unit_and_limit(option: str, section: Section, key: Key) -> None:
    """Each text has key, default, unit, limit and how a change takes effect, side by side, in its section.

    The shipped file does without the limits, and says where they are.
    """
    text = printed(option).replace("\\", "")
    if option == "--ini" and key.is_limit:
        part = re.search(rf"(?ms)^\[{section.name}[ \]].*?(?=^\[|\Z)", text)
        assert part is None or f"\n#{key.name} = " not in part[0]
        assert "see LIMITS in revtunnel.ini(5), or docs/settings.rst" in text
        return
    change = "at once on SIGHUP" if key.live else "with a restart"
    facts = f"Unit: {key.kind.unit}. Limit: {key.kind.limit}. Changes: {change}."
    head = {
        "--ini": f"#{key.name} = {key.default}".rstrip() + "\n",
        "--man": f"fB{key.name}fR = {key.default}".rstrip() + "\n",
        "--rst": f"   * - ``{key.name}``\n     - {f'``{key.default}``' if key.default else '(empty)'}\n",
    }[option]
    beside = (
        rf"{re.escape(facts)}\n{re.escape(head)}"
        if option == "--ini"
        else rf"{re.escape(head)}.*?{re.escape(facts)}"
    )

    assert re.search(beside, text, re.DOTALL)


def test_no_section_or_key_twice() -> None:
    """The table holds each key of each section once."""
    assert len({section.name for section in SECTIONS}) == len(SECTIONS)
    assert len(set(NAMES)) == len(NAMES)
    assert find("link", "keepalive").value == 25.0
    with pytest.raises(KeyError):
        find("link", "keepalves")


@pytest.mark.parametrize(
    "part",
    [
        AgentLimits,
        AuditLimits,
        CameoLimits,
        CccpLimits,
        DataLimits,
        EdgeLimits,
        EmoLimits,
        EnrolmentLimits,
        FleetLimits,
        LinkLimits,
        PenaltyLimits,
        RelayLimits,
        ServerLimits,
    ],
)
def test_every_limit_is_a_setting_or_fixed(part: type) -> None:
    """A limit that is added to limits.py must be given a key, or be named as one that has none."""
    keys = keys_of(part)
    fixed = {
        LinkLimits: FIXED,
        AuditLimits: {"tail"},
        CameoLimits: {"idle_frames"},
        EmoLimits: {"idle_frames"},
    }.get(part, set())

    assert keys.keys() | fixed == {field.name for field in dataclasses.fields(part)}
    assert not keys.keys() & fixed
    assert all(find(SECTIONS.of(part).name, name) == key for name, key in keys.items())
    assert part(**{name: key.value for name, key in keys.items()}) == part()


@pytest.mark.parametrize(
    ("section", "key", "text", "value"),
    [
        ("link", "keepalive", "2.5", 2.5),
        ("link", "keepalive", "2 min", 120.0),
        ("pool", "sticky", "30d", 2592000.0),
        ("link", "link_pool", "16 MiB", 16777216),
        ("link", "link_pool", "65536", 65536),
        ("limits", "descriptors", "0.5", 0.5),
        ("agent", "legacy", "yes", True),
        ("admin", "mode", "0660", 0o660),
        ("admin", "operators", "root, @adm\n1000", ("root", "@adm", "1000")),
        ("listener", "address", "localhost:1, [::1]:0", (("127.0.0.1", 1), ("::1", 0))),
        ("pool", "ranges", "20000-20999, 30000", ((20000, 20999), (30000, 30000))),
        ("listener", "mappings", "", ()),
        ("agent", "local", "http=LocalHost:80", (Offer("http", Target("localhost", 80)),)),
        ("agent", "serial", "plc:7", "plc:7"),
    ],
)
def test_values_are_read(section: str, key: str, text: str, value: object) -> None:
    """One of each kind, as it is written in a file."""
    assert find(section, key).kind.read(text) == value


@pytest.mark.parametrize(
    ("section", "key", "text", "error"),
    [
        ("link", "keepalive", "", "'': a number with or without s, min, h, d wanted, 1 s to 1 h"),
        ("link", "keepalive", "0", "'0' is outside 1 s to 1 h"),
        ("link", "keepalive", "2 h", "'2 h' is outside 1 s to 1 h"),
        ("link", "keepalive", "nan", "'nan': a number"),
        ("link", "keepalive", "1e3", "'1e3': a number"),
        ("link", "keepalive", "\u0663", r"'\u0663': a number"),
        ("link", "keepalive", "5 MiB", "'5 MiB': a number"),
        ("link", "keepalive", "1\n2", r"'1\n2': a number"),
        ("link", "channels", "256", "'256' is outside 1 to 255"),
        ("link", "channels", "2.5", "'2.5': a number wanted, 1 to 255"),
        ("link", "channels", "-1", "'-1': a number"),
        ("link", "channels", "9" * 5000, "a number wanted"),
        ("agent", "legacy", "true", "'true': yes or no wanted"),
        ("server", "log_level", "DEBUG", "'DEBUG': debug, info, warn or error wanted"),
        ("server", "name", "a b", "'a b': auto, or 1 to 64"),
        ("server", "state_directory", "var/lib", "absolute path"),
        ("admin", "socket", "/" + "x" * 107, "at most 107 characters"),
        ("admin", "mode", "0777", "'0777': an octal mode"),
        ("admin", "operators", "root, root", "'root' stands there twice"),
        ("admin", "operators", "ro ot", "'ro ot': a user name"),
        ("pool", "ranges", "6000-5000", "'6000-5000' runs backwards, 5000-6000 wanted"),
        ("pool", "ranges", "0-5", "'0': a port of 1 to 65535 wanted"),
        ("pool", "ranges", "1-99999", "'99999': a port of 1 to 65535 wanted"),
        ("pool", "ranges", "", "0 entries, 1 to 64 wanted"),
        ("pool", "bind", "example.org", "'example.org': an IP address"),
        ("listener", "address", "gate:2065", "'gate': an IP address of this machine wanted"),
        ("listener", "address", "2065", "'2065': HOST:PORT wanted"),
        ("listener", "mappings", "23", "'23': CLIENTPORT -> [NAME=]HOST:PORT wanted"),
        ("listener", "mappings", "192.0.2.5:0 -> a:1", "'0': a port of 1 to 65535 wanted"),
        ("listener", "mappings", "gate:23 -> a:1", "'gate': an IP address of this machine wanted"),
        ("listener", "mappings", "70000 -> a:1", "'70000': a port of 0 to 65535 wanted"),
        ("agent", "servers", "gate:0", "'gate:0': port 1 to 65535 wanted"),
        ("agent", "serial", "plc 7", "serial 'plc 7'"),
    ],
)
def test_c5_bad_values_are_named_with_what_is_wanted(section: str, key: str, text: str, error: str) -> None:
    """The text says which value and what would be right."""
    with pytest.raises(ValueError, match=re.escape(error)):
        find(section, key).kind.read(text)


@given(st.integers(0, 2**40))
def test_sizes_and_times_are_shown_as_they_are_read(value: int) -> None:
    """``show`` loses nothing: the shipped file says exactly the default."""
    size, time = find("limits", "pool").kind, find("pool", "sticky").kind
    seconds = float(value % (3650 * 86400))

    assert size.read(size.show(value % (64 * 2**30))) == value % (64 * 2**30)
    assert time.read(time.show(seconds)) == seconds


@given(st.sampled_from(KEYS), st.text(max_size=60))
def test_any_text_is_read_or_refused(which: tuple[Section, Key], text: str) -> None:
    """No text makes a reader fail in any other way than by ValueError, whose message stays short."""
    try:
        which[1].kind.read(text)
    except ValueError as error:
        assert len(str(error)) < 1000


def test_printing_command() -> None:
    """``python -m revtunnel.daemons.schema`` prints one of the three, or says how it is used."""
    command = [sys.executable, "-m", "revtunnel.daemons.schema"]
    printed = subprocess.run([*command, "--ini"], cwd=ROOT, capture_output=True, text=True, timeout=60)
    wrong = subprocess.run([*command, "--nope"], cwd=ROOT, capture_output=True, text=True, timeout=60)

    assert (printed.returncode, printed.stdout) == (0, as_ini(SECTIONS))
    assert (wrong.returncode, wrong.stdout) == (64, "")
    assert "usage:" in wrong.stderr


SAMPLES = (
    *("1", "60", "0.5", "yes", "auto", "none", "any", "x", "/tmp/x", "10.0.0.0/8, fe80::/10", "127.0.0.1:80"),
    *(
        "gate.example:2066",
        "redis://u@h:1/2",
        "rediss://h",
        "unix:/run/x",
        "one=gate:1, two=gate:2",
        "@adm, root",
    ),
    *(
        "20000-20010",
        "rt1",
        "info",
        "line=3",
        "say {user}",
        "https://h/x",
        "ssh, web",
        "a=b",
        "@warn",
        "8:00-9:00",
    ),
)


def test_every_value_of_every_setting_can_be_told_to_a_worker() -> None:
    """Whose process has the settings by a pipe: equal ones come out of it."""
    read = 0
    for section, key in KEYS:
        for text in (key.default, *SAMPLES):
            with contextlib.suppress(ValueError):
                value = key.kind.read(text)
                assert pickle.loads(pickle.dumps(value)) == value, f"[{section.name}] {key.name} = {text}"
                read += 1
    assert read > 2 * len(KEYS)
