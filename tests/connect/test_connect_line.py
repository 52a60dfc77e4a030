"""The command line: what goes together, what does not, and that the manual has all of it."""

import subprocess
import sys
from pathlib import Path

import pytest

from revtunnel.connect.connect_line import COMMANDS, OPTIONS, read_line
from revtunnel.connect.connect_manual import printed

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("line", "action", "what"),
    [
        (["plc-7/ssh"], "connect", ["plc-7/ssh"]),
        (["plc-7/ssh", "plc-7/http"], "connect", ["plc-7/ssh", "plc-7/http"]),
        (["-W", "plc-7/ssh"], "connect", []),
        (["-W", "list/ssh"], "connect", []),
        (["-W", f"revtunnel://gate/s/{'0' * 32}#{'n' * 32}"], "connect", []),
        (["login", "https://gate.example"], "login", ["https://gate.example"]),
        (["login", "--ca", "/a.pem", "https://gate.example"], "login", ["https://gate.example"]),
        (["plc-7/ssh", "--quiet", "plc-7/http"], "connect", ["plc-7/ssh", "plc-7/http"]),
        (["--json", "list"], "list", []),
        (["list", "plc-*", "--json"], "list", ["plc-*"]),
        (["share", "0" * 32, "--with", "ben", "--role", "use"], "share", ["0" * 32]),
    ],
)
def test_what_is_asked_for(line: list[str], action: str, what: list[str]) -> None:
    """A subcommand's word comes first, or it is a device."""
    options = read_line(line)
    assert (options.action, options.what) == (action, what)


@pytest.mark.parametrize(
    "line",
    [
        [],
        ["login"],
        ["list", "a", "b"],
        ["sessions", "x"],
        ["end"],
        ["share", "0" * 32],
        ["plc-7/ssh", "--with", "ben"],
        ["plc-7/ssh", "-W", "plc-7/ssh"],
        ["-W", "plc-7"],
        ["-W", "plc-7/"],
        ["-W", "/ssh"],
        ["-W", "plc-7/ssh", "--exec", "x"],
        ["-W", "plc-7/ssh", "--port", "1"],
        ["list", "--exec", "x"],
        ["plc-7/ssh", "--exec", ""],
        ["plc-7/ssh", "--exec", "x '"],
        ["plc-7/ssh", "--exec", "x {nothing}"],
        ["plc-7/ssh", "--exec", "x {0}"],
        ["plc-7/ssh", "--exec", "x {host.y}"],
        ["plc-7/ssh", "--port", "0"],
        ["plc-7/ssh", "--port", "65536"],
        ["plc-7/ssh", "--port", "x"],
        ["plc-7/ssh", "plc-7/http", "--port", "1"],
        ["plc-7/ssh", "--address-range", "--listen", "0.0.0.0"],
        ["plc-7/ssh", "--timeout", "0"],
        ["plc-7/ssh", "--nothing"],
        ["share", "0" * 32, "--with", "ben", "--role", "own"],
    ],
)
def test_wrong_usage_is_64(line: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """With a sentence on standard error."""
    with pytest.raises(SystemExit) as ended:
        read_line(line)
    assert ended.value.code == 64
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("revtunnel-connect: ")


def test_the_words_of_a_program() -> None:
    """As a shell splits them; braces are doubled to stand for themselves."""
    options = read_line(["plc-7/ssh", "--exec", "a 'b c' {host}:{port} {{x}}"])
    assert options.program == ["a", "b c", "{host}:{port}", "{{x}}"]


def test_manual_and_page_are_up_to_date() -> None:
    """Every option, command and status is there."""
    for path in ("man/revtunnel-connect.1", "docs/connect.rst"):
        text = (ROOT / path).read_text()
        assert text.count("begin ") == 3
        assert printed(text) == text, f"python -m revtunnel.connect.connect_manual {path}"
        plain = text.replace("\\-", "-")
        for flag, *_ in OPTIONS:
            assert flag in plain
        for usage, _ in COMMANDS.values():
            assert usage in plain
        for status in ("69", "75", "77", "78", "other"):
            assert status in plain


@pytest.mark.slow
def test_help_needs_little() -> None:
    """Neither Twisted nor OpenSSL is imported for it."""
    code = "import sys; from revtunnel.connect.connect import main\n"
    code += "try: main(['--help'])\nexcept SystemExit: pass\n"
    code += "print(sorted({'twisted', 'OpenSSL', 'websockets', 'cryptography', 'ssl'} & {*sys.modules}))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert run.stdout.splitlines()[-1] == "[]"
