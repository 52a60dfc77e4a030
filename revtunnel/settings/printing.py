"""What is printed from the table of settings: the shipped file, its manual page, and its page in docs/.

Rule of this file: it knows no setting. Limits stand in an appendix of the manuals, not in the shipped file.
The files are held to what is printed by tests/daemons/test_schema.py.
"""

import re
import textwrap
from collections.abc import Iterator

from revtunnel.ground.declared import Key
from revtunnel.settings.sections import Section, Sections

__all__ = ["as_ini", "as_man", "as_rst"]

_SYNTAX = """\
One KEY = VALUE a line under a [SECTION]; a line that begins with # or ; is a comment, a further indented
line goes on with the value above it. Times are seconds unless s, min, h or d follows; sizes are bytes unless
KiB, MiB or GiB follows. Unknown sections and keys are errors, and so is anything twice in one file.
FILE.d/*.ini beside FILE, and conf.d/*.ini beside /etc/revtunnel/revtunnel.ini, are read after it in the
order of their names; a later file wins. The command line wins over the environment (REVTUNNEL_CONFIG names
FILE), that over the files. Secrets never stand here: the device key has a file of its own, see key_file.
On SIGHUP all is read again; if anything is wrong the old settings stay.""".splitlines()
_EXAMPLE = """\
[listener main]
address = 0.0.0.0:2065, [::]:2065
tls = yes
certificate = /etc/revtunnel/server.pem
certificate_key = /etc/revtunnel/server.key
authority = /etc/revtunnel/authority.pem

[listener press]
address = 127.0.0.1:2066
kind = legacy
serial = press-4
mappings =
    2300 -> 10.41.51.152:23
    0 -> http=127.0.0.1:80

[pool default]
ranges = 20000-20999, 30000

[reservations]
plc-7/tcp-23 = 20023

[device plc-7]
clients = 10.1.0.0/16, 2001:db8:1::/48
targets = *:23
expires = 2027-12-31""".splitlines()
_APPENDIX = (
    "What bounds memory, time or count. The defaults are meant to do; they are set as all the rest is."
)
_LIMITS = """
Limits of memory, time and count, such as those of [limits], [link] and [data], are set in the same way. Their
defaults are meant to do, and they do not stand here: see LIMITS in revtunnel.ini(5), or docs/settings.rst.\
""".splitlines()


def _facts(key: Key) -> str:
    change = "at once on SIGHUP" if key.live else "with a restart"
    return f"Unit: {key.kind.unit}. Limit: {key.kind.limit}. Changes: {change}."


def _rows(sections: Sections, limits: bool) -> Iterator[tuple[Section, list[Key]]]:
    """The sections, each with those of its keys that are limits, or with the others, where it has any."""
    for section in sections:
        keys = [*section.keys, *([section.entry] if section.entry is not None else [])]
        found = [key for key in keys if key.is_limit is limits]
        if found:
            yield section, found


def as_ini(sections: Sections) -> str:
    """etc/revtunnel.ini: every key but the limits, as a comment with its default."""
    lines = ["# Settings of revtunnel-server and revtunnel-agent; each key is shown with its default.", "#"]
    lines += [*(f"# {line}".rstrip() for line in (*_SYNTAX, *_LIMITS)), ""]
    for section, keys in _rows(sections, limits=False):
        lines += [f"# ---- {section.text} Read by: {section.reader}.", section.shown or section.title, ""]
        for key in keys:
            lines += [f"# {line}" for line in (*textwrap.wrap(key.text, 100), _facts(key))]
            written = f"# {key.name} = PORT" if section.entry else f"#{key.name} = {key.default}"
            lines += [written.rstrip(), ""]
    return "\n".join(lines)


def _roff(text: str) -> str:
    return text.replace("\\", "\\e").replace("-", "\\-").replace("~", "\\(ti")


def _man_rows(sections: Sections, limits: bool, head: str) -> Iterator[str]:
    for section, keys in _rows(sections, limits):
        yield f'{head} "{_roff(section.title)}"'
        yield from (_roff(section.text), f"Read by: {section.reader}.")
        for key in keys:
            yield from (".TP", rf"\fB{_roff(key.name)}\fR = {_roff(key.default)}".rstrip())
            yield from (_roff(f"{key.text}."), ".br", _roff(_facts(key)))


def as_man(sections: Sections) -> str:
    """man/revtunnel.ini.5, whole."""
    lines = ['.TH REVTUNNEL.INI 5 "" revtunnel "File formats"', ".SH NAME"]
    lines += [r"revtunnel.ini \- settings of revtunnel\-server and revtunnel\-agent", ".SH SYNOPSIS"]
    lines += [".I /etc/revtunnel/revtunnel.ini", ".SH DESCRIPTION", *(_roff(line) for line in _SYNTAX)]
    lines += _man_rows(sections, False, ".SH")
    lines += [".SH EXAMPLE", ".nf", *(_roff(line) for line in _EXAMPLE), ".fi"]
    lines += [".SH LIMITS", _roff(_APPENDIX), *_man_rows(sections, True, ".SS"), ".SH SEE ALSO"]
    lines += [r".BR revtunnel\-server (8),", r".BR revtunnel\-agent (8),", ".BR revtunnelctl (1)", ""]
    return "\n".join(lines)


def _plain(text: str) -> str:
    """What reST would read as markup, escaped."""
    return re.sub(r"([*|`_])", r"\\\1", text)


def _rst_rows(sections: Sections, limits: bool, line: str) -> Iterator[str]:
    for section, keys in _rows(sections, limits):
        title = f"Limits in {section.title}" if limits else section.title
        yield from ("", title, line * len(title), "")
        yield from (_plain(f"{section.text} Read by: {section.reader}."), "")
        yield from (".. list-table::", "   :header-rows: 1", "   :widths: 20 15 65", "")
        yield from ("   * - key", "     - default", "     - meaning")
        for key in keys:
            default = f"``{key.default}``" if key.default else "(empty)"
            yield from (f"   * - ``{key.name}``", f"     - {default}")
            yield f"     - {_plain(f'{key.text}. {_facts(key)}')}"


def as_rst(sections: Sections) -> str:
    """docs/settings.rst."""
    lines = ["Settings", "========", "", ".. Printed by: python -m revtunnel.daemons.schema --rst", ""]
    lines += [line.replace("*", "\\*") for line in _SYNTAX]
    lines += ["", "An example::", "", *(f"    {line}".rstrip() for line in _EXAMPLE)]
    lines += [*_rst_rows(sections, False, "-"), "", "Limits", "------", "", _APPENDIX]
    return "\n".join([*lines, *_rst_rows(sections, True, "~"), ""])
