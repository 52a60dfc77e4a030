"""Completion in bash: the shipped scripts are what the tables say, and bash does with them what it should."""

import shutil
import subprocess
from pathlib import Path

import pytest

from revtunnel.ctl.completion import completions

SHIPPED = Path(__file__).resolve().parents[2] / "etc" / "bash-completion"


def test_what_is_shipped_is_what_the_tables_say() -> None:
    """Else: python -m revtunnel.ctl.completion etc/bash-completion"""
    assert {path.name: path.read_text() for path in SHIPPED.iterdir()} == completions()


def completed(line: str, tmp_path: Path) -> set[str]:
    """What bash offers at the end of a line, in a directory with one file."""
    (tmp_path / "my file.ini").touch()
    words = [*line.split(" ")]
    script = f"""
    . '{SHIPPED / words[0]}'
    compopt() {{ :; }}
    COMP_WORDS=({" ".join(f"'{word}'" for word in words)}) COMP_CWORD={len(words) - 1}
    _{words[0].replace("-", "_")}
    printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    done = subprocess.run(["bash", "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    return {*done.stdout.split("\n")} - {""}


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")
@pytest.mark.parametrize(
    ("line", "some", "none"),
    [
        ("revtunnelctl ", {"devices", "user", "ca", "--json", "install-units"}, {"add", "--csr"}),
        ("revtunnelctl us", {"user", "users"}, {"devices"}),
        ("revtunnelctl --socket /x user ", {"add", "remove", "--json"}, {"devices", "--note"}),
        ("revtunnelctl user add ana --", {"--note", "--days", "--json"}, {"add", "--csr"}),
        ("revtunnelctl users ", {"--json"}, {"add", "--note"}),
        ("revtunnelctl grant ana plc-7 http ", {"--actions", "--until"}, {"--note"}),
        ("revtunnelctl log-level ", {"debug", "warn"}, {"devices"}),
        ("revtunnelctl enroll plc-7 --csr ", {"my file.ini"}, {"--json"}),
        ("revtunnelctl enroll plc-7 --server ", set(), {"--json", "my file.ini"}),
        ("revtunnel-server --l", {"--listen", "--log-level", "--log-format"}, {"--config"}),
        ("revtunnel-server --log-level ", {"info"}, {"--config"}),
        ("revtunnel-agent --config my", {"my file.ini"}, {"--config"}),
        ("revtunnel-agent --config = my", {"my file.ini"}, {"--config"}),
        ("revtunnel-agent ", {"--local", "--enroll", "--help"}, {"--key"}),
        ("revtunnel-connect ", {"login", "share", "-W", "--exec"}, {"devices"}),
        ("revtunnel-connect share x --role ", {"watch", "use", "take"}, {"login"}),
        ("revtunnel-cccp --ht", {"--http"}, {"--host"}),
        ("revtunnel-cameo --", {"--config"}, {"--enroll"}),
    ],
)
def test_bash_offers(line: str, some: set[str], none: set[str], tmp_path: Path) -> None:
    """Words and options where they may stand, files behind options that take one."""
    found = completed(line, tmp_path)
    assert some <= found
    assert not none & found
