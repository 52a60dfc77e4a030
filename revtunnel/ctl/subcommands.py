"""Every subcommand of revtunnelctl: those of the operations, and those of its own.

Rule of this file: rows of the same form as those of operations; no decision, no output.
"""

from revtunnel.daemons.all_operations import OPERATIONS
from revtunnel.process.admin.operation_form import Argument, CallerRole, Kind, Operation

__all__ = ["COMMANDS", "GROUPS"]

# the first words of commands of two words
GROUPS = {
    "ca": "the certificate authority's own files; needs no server",
    "user": "people who may be granted sessions",
    "token": "what a user shows",
    "group": "groups of people",
    "member": "who is in a group",
    "session": "remote sessions of people",
    "audit": "the record of who was let in to what",
    "webhook": "what could not be delivered to a webhook, and trying one",
}
_SERIAL = Argument("serial", shown="SERIAL")
_DIR = Argument("dir", text="the authority's directory (default: the settings')", shown="--dir DIR")
_DAYS = Argument(
    "days", Kind.NUMBER, "days it is good (default: the settings')", "--days N", low=1, high=36500
)
_WATCH = OPERATIONS["Watch"]._replace(
    arguments=(Argument("count", Kind.NUMBER, "end after N lines", "--count N", low=1, high=10**9),)
)
_CHECK = Operation(
    "", "", "check a settings file; needs no server", "Says ok, or every error with file and line.",
    (Argument("file", text="default: the one of --config, or the usual one", shown="[FILE]"),),
    command="check-config",
)  # fmt: skip
_VERIFY = Operation(
    "", "", "find the first record of an audit file that was changed, is missing or out of order",
    "Needs no server. With older files beside it, which belong to it. Status 1 where there is one.",
    (
        Argument("file", text="the newest file (default: the settings')", shown="[FILE]"),
        Argument("head", text="number and hash that were kept elsewhere; the chain has to come by there",
                 shown="--head SEQ:HASH"),
    ),
    command="audit verify",
)  # fmt: skip
_ENROLL = Operation(
    "", "", "give a device a certificate where the server has an authority, else a key",
    "Without an option, a one-time token where the server has an authority, else a key. A token is printed "
    "in a line to be run once beside the device, and is good for that device and the ``token_life`` of the "
    "settings; with it the agent makes its key, gets its certificate and renews it. A key is printed once, "
    "alone on standard output, and kept nowhere; from now on the device must prove it.",
    (
        _SERIAL,
        Argument("token", Kind.YES_NO, "print the line with a one-time token", "--token", either=True),
        Argument("csr", text="make the certificate for this request (PKCS #10), whose names are ignored; it "
                 "is printed, or put into --out", shown="--csr FILE", either=True),
        Argument("key", Kind.YES_NO, "make a device key in any case", "--key", either=True),
        Argument("app_key", Kind.YES_NO, "make the app key of a ThingWorx device", "--app-key", either=True),
        Argument("out", text="where to put it: a directory for a certificate and its key, both made here, a "
                 "file (mode 0600) for a device key", shown="--out PATH"),
        Argument("server", text="where the agent shall dial (default: what the server knows)",
                 shown="--server HOST:PORT"),
        Argument("replace", Kind.YES_NO, "also where there is one already, which does not count any more; "
                 "replaces files, too", "--replace"),
    ),
    role=CallerRole.OPERATOR, command="enroll",
)  # fmt: skip
_CA = (
    Operation(
        "", "", "make a new authority", "A running server takes it with the next ``reload``.",
        (Argument("name", text="what people read in it", shown="--name NAME", default="revtunnel"), _DIR,
         _DAYS),
        command="ca init",
    ),
    Operation(
        "", "", "make key and certificate of a server, or renew the certificate",
        "Prints the lines for its settings.",
        (
            Argument("names", text="host name or IP address, as agents dial it", shown="NAME ..."),
            Argument("out", text="where to put the files (default: servers in the authority's directory)",
                     shown="--out DIR"),
            _DIR,
            _DAYS,
        ),
        command="ca issue-server",
    ),
    Operation(
        "", "", "certificates that were issued", "Of each: kind, name, state, days, fingerprint.", (_DIR,),
        command="ca list",
    ),
)  # fmt: skip
_UNITS = Operation(
    "", "", "set a host of systemd up: units, users, directories, settings; needs no server",
    "Says what was done. Files that somebody has changed are kept as they are.",
    (
        Argument("public", text="host name or IP address by which agents of other machines dial this server "
                 "(several: with commas); an authority and a certificate are made where there are none",
                 shown="--public NAME"),
        Argument("clients", text="with --public: addresses and networks of those who may use client ports",
                 shown="--clients NETWORKS"),
        Argument("agent", text="settings and directory of an agent with this serial, too; its service is "
                 "revtunnel-agent@SERIAL", shown="--agent SERIAL"),
        Argument("server", text="with --agent: where it dials (several: with commas)",
                 shown="--server HOST:PORT"),
        Argument("local", text="with --agent: what it offers, as [NAME=]HOST:PORT (several: with commas)",
                 shown="--local OFFERS"),
        Argument("root", text="do it to the system below this directory", shown="--root DIR"),
        Argument("remove", Kind.YES_NO, "take all that away again which nobody has changed; users and state "
                 "directories stay", "--remove"),
    ),
    role=CallerRole.OPERATOR, command="install-units",
)  # fmt: skip
_ALL = {**OPERATIONS, "Watch": _WATCH, "check-config": _CHECK, "verify": _VERIFY, "enroll": _ENROLL}
_OF_DAEMONS = sorted((row for row in _ALL.values() if row.command), key=lambda row: row.role)  # looking first
COMMANDS = {row.command: row for row in (*_OF_DAEMONS, *_CA, _UNITS)}
