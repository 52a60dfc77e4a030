"""Webhooks of a real server to a real receiver, over TLS: signed, in order, again after kill -9."""

import signal
from pathlib import Path

import pytest

from tests.support.daemons import Lab, Server
from tests.support.throwaway_tls import Issuer
from tests.support.traffic import wait_until
from tests.support.webhook_receiver import SECRET, Receiver

pytestmark = pytest.mark.slow


def changed(server: Server, **chat: object) -> None:
    """Other settings of the hook, by SIGHUP."""
    count = len(server.events("settings-reloaded"))
    server.settings["webhook chat"] = {**server.settings["webhook chat"], **chat}
    server.write()
    server.signal(signal.SIGHUP)
    server.wait_until(lambda: len(server.events("settings-reloaded")) > count, "the reload")


def letters(server: Server) -> list[dict[str, str]]:
    """The dead ones."""
    found: list[dict[str, str]] = server.control("webhook", "dead", "chat")["dead"]
    return found


def test_a_receiver_is_told_at_least_once_and_in_order(lab: Lab, tmp_path: Path) -> None:
    """One that is down, slow, redirects or shows another's certificate is told later; killed or not."""
    authority = Issuer(tmp_path)
    secret = tmp_path / "hook.secret"
    secret.write_text(SECRET)
    secret.chmod(0o600)
    with Receiver(authority.server("127.0.0.1", file="receiver")) as receiver:
        about = {
            "url": receiver.url,
            "secret_file": secret,
            "facts": "link-up, link-down",
            "authority": authority.file,
            "private": "yes",
        }
        server = lab.server({"webhook chat": about}).start()
        lab.agent(server, offers={"ssh": "127.0.0.1:22"}).start()
        wait_until(lambda: receiver.events() == ["link-up"], "the first message")
        assert receiver.got[0][1]["data"]["serial"] == "plc-7"

        receiver.status = 307
        server.control("kick", "plc-7", "--retry-after", "0")
        server.wait_event("trouble", what="webhook chat")
        assert server.events("trouble", what="webhook chat")[-1]["detail"] == "it answered 307"
        receiver.status = 0
        tries = receiver.tries
        wait_until(lambda: receiver.tries > tries, "a try that is not answered")
        server.kill()
        receiver.status = 204
        server.start()
        wait_until(lambda: receiver.events()[:3] == ["link-up", "link-down", "link-up"], "what was kept")
        wait_until(lambda: server.control("webhooks")["webhooks"][0]["waiting"] == 0, "an empty queue")
        assert receiver.wrong == []
        assert server.control("webhooks")["webhooks"][0]["state"] == "well"

        changed(server, authority=str(Issuer(tmp_path, "other authority").file), patience="0 s")
        server.control("webhook", "test", "chat")
        wait_until(lambda: letters(server), "a dead letter")
        (letter,) = letters(server)
        assert "certificate verify failed" in letter["why"]
        changed(server, authority=str(authority.file), private="no")
        assert server.control("webhook", "redeliver", "chat", letter["id"])["redelivered"] == 1
        wait_until(lambda: letters(server), "a dead letter")
        assert "127.0.0.1 is no public address" in letters(server)[0]["why"]
        changed(server, private="yes")
        server.control("webhook", "redeliver", "chat")
        wait_until(lambda: letter["id"] in dict(receiver.got), "the letter")
        assert receiver.wrong == []
