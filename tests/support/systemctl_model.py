#!/usr/bin/python3
"""What systemctl does with a unit of ours, where no systemd runs: enable, disable, start, stop, reload.

Rule of this file: symbolic links are the real one's business. Of a unit it keeps ExecStart, User, UMask,
StateDirectory and RuntimeDirectory with their modes, and Type=notify: a start waits for READY=1.
"""

import os
import pwd
import re
import signal
import socket
import subprocess
import sys
import time

DIRECTORY = "/run/systemctl-model"
PLACES = ("/etc/systemd/system", "/lib/systemd/system", "/usr/lib/systemd/system")


def settings(name: str) -> dict[str, str]:
    """The unit's lines, with %i filled in."""
    stem, at, instance = name.partition("@")
    file = f"{stem}{at}.service"
    path = next(os.path.join(place, file) for place in PLACES if os.path.exists(os.path.join(place, file)))
    with open(path) as unit:
        lines = re.findall(r"^(\w+)=(.*)$", unit.read(), re.MULTILINE)
    return {key: value.replace("%i", instance) for key, value in lines}


def start(name: str) -> None:
    """Run it, and wait until it is ready."""
    unit = settings(name)
    user = pwd.getpwnam(unit["User"])
    os.makedirs(DIRECTORY, exist_ok=True)
    environ = {"PATH": os.environ["PATH"], "HOME": user.pw_dir, "NOTIFY_SOCKET": f"{DIRECTORY}/{name}.notify"}
    for kind, above in (("StateDirectory", "/var/lib"), ("RuntimeDirectory", "/run")):
        if kind in unit:
            environ[re.sub("(?<=[a-z])(?=D)", "_", kind).upper()] = path = os.path.join(above, unit[kind])
            os.makedirs(path, exist_ok=True)
            os.chmod(path, int(unit[f"{kind}Mode"], 8))
            os.chown(path, user.pw_uid, user.pw_gid)
    told = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    told.bind(environ["NOTIFY_SOCKET"])
    os.chmod(environ["NOTIFY_SOCKET"], 0o777)
    told.settimeout(120)
    with open(f"{DIRECTORY}/{name}.log", "ab") as log:
        process = subprocess.Popen(
            ["setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups",
             "--inh-caps=-all", *unit["ExecStart"].split()],
            env=environ, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            umask=int(unit["UMask"], 8), cwd="/",
        )  # fmt: skip
    with open(f"{DIRECTORY}/{name}.pid", "w") as file:
        file.write(str(process.pid))
    while b"READY=1" not in told.recv(4096):
        pass


def pid_of(name: str) -> int:
    """Its process, 0 if none."""
    try:
        with open(f"{DIRECTORY}/{name}.pid") as file:
            return int(file.read())
    except FileNotFoundError:
        return 0


def stop(name: str) -> None:
    """End it, and wait for that."""
    pid = pid_of(name)
    if not pid:
        return
    os.kill(pid, signal.SIGTERM)
    end = time.monotonic() + 60
    while os.path.exists(f"/proc/{pid}/exe") and time.monotonic() < end:
        time.sleep(0.05)
    for kind in ("pid", "notify"):
        os.unlink(f"{DIRECTORY}/{name}.{kind}")


def main(verb: str, *words: str) -> None:
    """As the real one is called."""
    units = [word.removesuffix(".service") for word in words if not word.startswith("-")]
    if verb in ("enable", "disable"):
        subprocess.run(["/usr/bin/systemctl", "-q", verb, *units], check=True)
    for unit in units:
        if verb == "start" or (verb == "enable" and "--now" in words):
            start(unit)
        if verb == "stop" or (verb == "disable" and "--now" in words):
            stop(unit)
        if verb == "reload":
            os.kill(pid_of(unit), signal.SIGHUP)


main(*sys.argv[1:])
