"""CCCP's API against its own description, as schemathesis reads it."""

import subprocess
import sys

import pytest

from tests.support.cccp_site import CccpDaemon
from tests.support.daemons import Lab

pytest.importorskip("schemathesis")
pytestmark = pytest.mark.slow
EXAMPLES = 30  # requests at each operation, beside those that go through its borders


@pytest.mark.timeout(600)
@pytest.mark.parametrize("token", ["", "a-secret-of-many-characters-0123456789"], ids=["open", "token"])
def test_every_answer_is_as_the_description_says(lab: Lab, token: str) -> None:
    """Statuses, bodies, headers, methods, the token; right data accepted, wrong data refused.

    503 and 504 are documented answers here, and no faults; a bug would be a traceback in the log.
    """
    settings: dict[str, object] = {"wait": "1"}
    if token:
        secret = lab.directory / "token"
        secret.write_text(token)
        secret.chmod(0o600)
        settings["token_file"] = secret
    site = lab.add(CccpDaemon(lab.directory, {"cccp": settings})).start()
    command = [
        sys.executable,
        "-m",
        "schemathesis.cli",
        "run",
        f"http://127.0.0.1:{site.api_port}/openapi.json",
    ]
    command += [
        "--checks",
        "all",
        "--exclude-checks",
        "not_a_server_error",
        "--phases",
        "examples,coverage,fuzzing",
        "--no-color",
    ]
    command += ["--max-examples", str(EXAMPLES), "--generation-database", "none", "--warnings", "off"]
    command += ["--header", f"Authorization: Bearer {token}"] if token else []
    done = subprocess.run(
        command, cwd=lab.directory, env=site.environment(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
