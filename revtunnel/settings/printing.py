"""What is printed from the table of settings: the shipped file, its manual page, and its page in docs/.

Rule of this file: it knows no setting; what it prints is checked against the files by
tests/daemons/test_schema.py.
"""

import re
import textwrap

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


def _facts(key: Key) -> str:
    change = "at once on SIGHUP" if key.live else "with a restart"
    return f"Unit: {key.kind.unit}. Limit: {key.kind.limit}. Changes: {change}."


def _rows(section: Section) -> tuple[Key, ...]:
    return section.keys if section.entry is None else (*section.keys, section.entry)


def as_ini(sections: Sections) -> str:
    """etc/revtunnel.ini: every key as a comment with its default."""
    lines = ["# Settings of revtunnel-server and revtunnel-agent; each key is shown with its default.", "#"]
    lines += [*(f"# {line}" for line in _SYNTAX), ""]
    for section in sections:
        lines += [f"# ---- {section.text} Read by: {section.reader}.", section.shown or section.title, ""]
        for key in _rows(section):
            lines += [f"# {line}" for line in (*textwrap.wrap(key.text, 100), _facts(key))]
            lines += [
                f"# {key.name} = PORT" if section.entry else f"#{key.name} = {key.default}".rstrip(),
                "",
            ]
    return "\n".join(lines)


def _roff(text: str) -> str:
    return text.replace("\\", "\\e").replace("-", "\\-").replace("~", "\\(ti")


def as_man(sections: Sections) -> str:
    """man/revtunnel.ini.5, whole."""
    lines = ['.TH REVTUNNEL.INI 5 "" revtunnel "File formats"', ".SH NAME"]
    lines += [r"revtunnel.ini \- settings of revtunnel\-server and revtunnel\-agent", ".SH SYNOPSIS"]
    lines += [".I /etc/revtunnel/revtunnel.ini", ".SH DESCRIPTION", *(_roff(line) for line in _SYNTAX)]
    for section in sections:
        lines += [f'.SH "{_roff(section.title)}"', _roff(section.text), f"Read by: {section.reader}."]
        for key in _rows(section):
            lines += [".TP", rf"\fB{_roff(key.name)}\fR = {_roff(key.default)}".rstrip()]
            lines += [_roff(f"{key.text}."), ".br", _roff(_facts(key))]
    lines += [".SH EXAMPLE", ".nf", *(_roff(line) for line in _EXAMPLE), ".fi", ".SH SEE ALSO"]
    lines += [r".BR revtunnel\-server (8),", r".BR revtunnel\-agent (8),", ".BR revtunnelctl (1)", ""]
    return "\n".join(lines)


def _cells(key: Key) -> list[str]:
    """A row of the table in docs/; what reST would read as markup is escaped."""
    default = f"``{key.default}``" if key.default else "(empty)"
    meaning = re.sub(r"([*|`_])", r"\\\1", f"{key.text}. {_facts(key)}")
    return [f"   * - ``{key.name}``", f"     - {default}", f"     - {meaning}"]


def as_rst(sections: Sections) -> str:
    """docs/settings.rst."""
    lines = ["Settings", "========", "", ".. Printed by: python -m revtunnel.daemons.schema --rst", ""]
    lines += [line.replace("*", "\\*") for line in _SYNTAX]
    lines += ["", "An example::", "", *(f"    {line}".rstrip() for line in _EXAMPLE)]
    for section in sections:
        lines += [
            "",
            section.title,
            "-" * len(section.title),
            "",
            f"{section.text} Read by: {section.reader}.",
        ]
        lines += ["", ".. list-table::", "   :header-rows: 1", "   :widths: 20 15 65", ""]
        lines += ["   * - key", "     - default", "     - meaning"]
        lines += [cell for key in _rows(section) for cell in _cells(key)]
    return "\n".join([*lines, ""])
