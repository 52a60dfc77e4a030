"""What a declaration is enough for: reading, errors with their line, what a reload changed, the manuals."""

from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from revtunnel.ground.declared import limit, own_keys, setting, updated
from revtunnel.ground.kinds import count, nothing, path, seconds, word
from revtunnel.settings.inifile import Surroundings, Table, read_files
from revtunnel.settings.printing import as_ini, as_man, as_rst
from revtunnel.settings.sections import Section, Sections


@dataclass(frozen=True)
class TeaLimits:
    """What a kitchen has."""

    cups: int = limit(count("cups", 1, 99), 6, "cups at once")
    shelf: int = limit(count("cups", 1, 99), 12, "cups that the shelf is built for", live=False)
    spoons: int = 12  # is no setting


@dataclass(frozen=True, kw_only=True)
class Pot:
    """One of several."""

    name: str
    sort: str = setting(word("green", "black"), "green", "what is in it", live=True)


@dataclass(frozen=True, kw_only=True)
class OfGuests(Pot):
    """The same, with a word of its own for what it inherits."""

    sort: str = setting(word("green", "black"), "black", "what guests get", live=True)
    lid: str | None = setting(nothing("none", path(99, "none")), "none", "its lid", name="lid_file")


@dataclass(frozen=True, kw_only=True)
class Kitchen:
    """All of it."""

    warm: float = setting(seconds(0, 3600), "5 s", "time tea is kept warm", live=True)
    limits: TeaLimits
    pots: tuple[Pot, ...] = ()
    guests: tuple[OfGuests, ...] = field(default=())


@dataclass(frozen=True)
class Cellar:
    """Where there may be a pot, or none."""

    cold: bool = True
    pot: Pot | None = None


def parts(*classes: type) -> tuple[str, ...]:
    """As a table names them."""
    return tuple(f"{each.__module__}:{each.__qualname__}" for each in classes)


SECTIONS = Sections(
    Section("kitchen", "cook", "The kitchen.", parts(Kitchen, TeaLimits)),
    Section("pot", "cook", "A pot.", parts(Pot), named=True),
    Section("guest", "cook", "A pot for guests.", parts(OfGuests, Pot), named=True),
)


def table(tmp_path: Path, text: str) -> Table:
    """A file, read."""
    file = tmp_path / "k.ini"
    file.write_text(text)
    return read_files(str(file), None, Surroundings({}, False, "/home/cook", "kitchen"), SECTIONS)


def kitchen(tmp_path: Path, text: str) -> Kitchen:
    """What it says."""
    found = table(tmp_path, text)
    assert found.errors == []
    return found.part(Kitchen, pots=found.parts(Pot, "main"), guests=found.parts(OfGuests, None))


def test_what_is_not_written_is_the_default(tmp_path: Path) -> None:
    """Also of the parts in a part, and of a section that is assumed where there is none."""
    assert kitchen(tmp_path, "") == Kitchen(limits=TeaLimits(), pots=(Pot(name="main"),))
    assert OfGuests(name="x").lid is None and OfGuests(name="x").sort == "black"


def test_what_is_written_is_taken(tmp_path: Path) -> None:
    """By the names of a file, which need not be those of the fields."""
    found = kitchen(
        tmp_path, "[kitchen]\nwarm = 1 min\ncups = 7\n[pot a]\nsort = black\n[guest b]\nlid_file = /lid\n"
    )
    assert (found.warm, found.limits.cups, found.pots) == (60.0, 7, (Pot(name="a", sort="black"),))
    assert found.guests == (OfGuests(name="b", lid="/lid"),)


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("[kitchen]\ncups = 0\n", "k.ini:2: [kitchen] cups: '0' is outside 1 to 99"),
        ("[kitchen]\nspoons = 1\n", "k.ini:2: [kitchen] spoons: no such key, wanted: warm, cups, shelf"),
        ("[kitchen]\ncup = 1\n", "k.ini:2: [kitchen] cup: no such key, did you mean cups?"),
        ("[guest b]\nlid = /x\n", "k.ini:2: [guest b] lid: no such key"),
        ("[pan]\n", "k.ini:1: '[pan]' is no section, wanted: [kitchen], [pot NAME], [guest NAME]"),
    ],
)
def test_what_is_wrong_is_said_with_its_line(tmp_path: Path, text: str, error: str) -> None:
    """From the declaration alone."""
    (line,) = table(tmp_path, text).errors
    assert line.replace(f"{tmp_path}/", "").startswith(error)


def test_differences(tmp_path: Path) -> None:
    """Each under its name in a file, by whether it counts at once; what came or went is one name."""
    old = kitchen(tmp_path, "[pot a]\n[guest b]\n")
    text = (
        "[kitchen]\nwarm = 9\ncups = 9\nshelf = 9\n[pot a]\nsort = black\n[pot c]\n[guest d]\nlid_file = /l\n"
    )
    live, restart = SECTIONS.differences(old, kitchen(tmp_path, text))
    assert live == ["[kitchen] warm", "[kitchen] cups", "[pot a] sort", "[guest b]", "[pot c]", "[guest d]"]
    assert restart == ["[kitchen] shelf"]
    new = replace(old, guests=(OfGuests(name="b", lid="/lid"),))
    assert SECTIONS.differences(old, new) == ([], ["[guest b] lid_file"])


def test_what_needs_a_restart_is_as_it_was(tmp_path: Path) -> None:
    """``updated``: what runs has the live ones of the new, in the parts of a part too; what came is whole."""
    assert updated(TeaLimits(cups=1, shelf=1), TeaLimits(cups=2, shelf=2)) == TeaLimits(cups=2, shelf=1)
    old = Kitchen(limits=TeaLimits(shelf=1), guests=(OfGuests(name="a", lid="/a"), OfGuests(name="b")))
    new = Kitchen(
        warm=9.0,
        limits=TeaLimits(shelf=2),
        guests=(OfGuests(name="c", lid="/c"), OfGuests(name="a", lid="/x")),
    )
    assert updated(old, new) == replace(
        new, limits=TeaLimits(shelf=1), guests=(OfGuests(name="c", lid="/c"), OfGuests(name="a", lid="/a"))
    )
    assert updated(old, old) is old


def test_a_part_that_is_one_alone_comes_and_goes_with_a_restart(tmp_path: Path) -> None:
    """It is said by the name of its section."""
    without, there = Cellar(), Cellar(pot=Pot(name="a", sort="black"))
    assert updated(without, there) == without and updated(there, without) == there
    sections = Sections(
        Section("cellar", "cook", "A cellar.", parts(Cellar)), Section("pot", "cook", "A.", parts(Pot))
    )
    assert sections.differences(without, there) == ([], ["[pot]"])
    assert sections.differences(there, without) == ([], ["[pot]"])


def test_the_keys_of_a_section_are_those_of_its_parts_in_their_order() -> None:
    """A part's own, then those of the next; of what is said twice the first part's words count."""
    assert [key.name for key in own_keys(OfGuests)] == ["lid_file"]
    keys = SECTIONS.by_name["guest"].keys
    assert [(key.name, key.text) for key in keys] == [("lid_file", "its lid"), ("sort", "what guests get")]
    assert SECTIONS.find("guest b", "sort").default == "black"


def test_limits_are_in_the_manuals_and_not_in_the_shipped_file() -> None:
    """Beside what is set, in an appendix."""
    assert "#warm = 5 s" in as_ini(SECTIONS) and "cups" not in as_ini(SECTIONS).partition("[kitchen]")[2]
    manual, page = as_man(SECTIONS), as_rst(SECTIONS)
    assert manual.index("fBwarm") < manual.index(".SH LIMITS") < manual.index("fBcups")
    assert page.index("``warm``") < page.index("Limits in [kitchen]") < page.index("``cups``")
