"""The HTTP API for people against its own description, as schemathesis reads it."""

import subprocess
import sys

import pytest

from tests.support.daemons import Lab

pytest.importorskip("schemathesis")
pytestmark = pytest.mark.slow
EXAMPLES = 6  # requests at each operation, beside those that go through its borders
OWN = ("userEdit", "userRemove", "userReset", "tokenRevoke", "myTokenRevoke")  # may shut out who asks
LEFT_OUT = ("drain", "watch", "myEvents")  # would end the server, or never end


@pytest.mark.timeout(900)
@pytest.mark.parametrize("own", [pytest.param(False, marks=pytest.mark.long), True], ids=["most", "own"])
def test_every_answer_is_as_the_description_says(lab: Lab, own: bool) -> None:
    """Statuses, bodies, headers, methods, the token; wrong data refused. A bug would be told in the log.

    503 is a documented answer here, and no fault. Some right data is refused by what it means: a grant that
    ends before it begins.
    """
    server = lab.server({"web main": {"address": "127.0.0.1:0"}}).start()
    token = server.control("user", "add", "root", "--role", "admin")["token"]
    excluded = "not_a_server_error,positive_data_acceptance"
    command = [sys.executable, "-m", "schemathesis.cli", "run"]
    command += [f"http://127.0.0.1:{server.web_port}/api/openapi.json"]
    for name in OWN if own else OWN + LEFT_OUT:
        command += ["--include-operation-id" if own else "--exclude-operation-id", name]
    command += ["--checks", "all", "--exclude-checks", excluded, "--phases", "examples,coverage,fuzzing"]
    command += ["--no-color", "--max-examples", str(EXAMPLES), "--generation-database", "none"]
    command += ["--warnings", "off", "--header", f"Authorization: Bearer {token}"]
    done = subprocess.run(
        command, cwd=lab.directory, env=server.environment(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
