"""/metrics: who may read it, what is in it, and that dashboards and alerts name what is there."""

import json
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from revtunnel.daemons.webhook_settings import WebhookSettings
from revtunnel.ground.facts import ChannelEnded, ChannelOpened, LinkRefused, ServerState
from revtunnel.ground.reasons import Ended
from revtunnel.process.web.web_rules import API, DEVICE_METRICS, METRICS, OPEN_METRICS
from revtunnel.streams.service_state import ServiceState
from tests.support.desk import Desk

parser = pytest.importorskip("prometheus_client.openmetrics.parser")
ROOT = Path(__file__).resolve().parents[2]
ALERTS, BOARD = ROOT / "etc/prometheus/alerts.yml", ROOT / "etc/grafana/revtunnel.json"
OPEN = frozenset({API, METRICS, OPEN_METRICS})
ACCEPT = "Accept: application/openmetrics-text; version=1.0.0"


def read(desk: Desk) -> dict[str, float]:
    """Every sample by its name and labels, parsed as Prometheus does."""
    answer = desk.ask("GET", "/metrics", "", None, ACCEPT)
    assert answer.headers["content-type"].startswith("application/openmetrics-text; version=1.0.0")
    found = {}
    for family in parser.text_string_to_metric_families(answer.body.decode()):
        for sample in family.samples:
            labels = ",".join(f"{name}={value}" for name, value in sorted(sample.labels.items()))
            found[f"{sample.name} {labels}".strip()] = sample.value
    return found


def test_who_may_read_it() -> None:
    """A reader by token, everybody where the settings say so, nobody where there is none."""
    desk = Desk(frozenset({API, METRICS}))
    assert desk.ask("GET", "/metrics").word == "login"
    assert desk.ask("GET", "/metrics", desk.person("ana")).word == "denied"
    assert desk.ask("GET", "/metrics", desk.person("root", "admin", "own")).word == "denied"
    assert desk.ask("GET", "/metrics", desk.person("rita", "reader")).status == 200
    assert desk.ask("GET", "/metrics", "", None, "Origin: https://evil.example").word == "origin"
    assert Desk(OPEN).ask("POST", "/metrics").word == "method"
    assert Desk(OPEN).ask("GET", "/metrics/x").status == 404
    assert Desk(frozenset({API})).ask("GET", "/metrics").status == 404


def test_webhooks_are_counted_where_there_are_any() -> None:
    """What waits, and what became of the rest, by hook."""
    desk = Desk(OPEN)
    assert not any("webhook" in name for name in read(desk))
    facts = WebhookSettings(name="chat", url="https://a", secret_file="/nowhere", facts=("state",), queue=2)
    desk.hooks.take([facts], "gate")
    for detail in "abc":
        desk.hooks.told(ServerState("x", detail))
    desk.pump()
    found = read(desk)
    assert found["revtunnel_webhook_waiting hook=chat"] == 2
    assert found["revtunnel_webhook_letters hook=chat"] == 0
    told = {
        name: found[f"revtunnel_webhook_messages_total hook=chat,result={name}"]
        for name in ("dropped", "failed")
    }
    assert told == {"dropped": 1, "failed": 1}  # for there is no secret


def test_what_happens_is_counted() -> None:
    """By reason and by result; bytes of what runs and of what has ended; how late the loop was."""
    desk = Desk(OPEN)
    before = read(desk)
    assert before["revtunnel_devices state=online"] == before["revtunnel_links"] == 1
    report = desk.switchboard.report
    report(LinkRefused("main", "198.51.100.1:1", "", "denied", "x"))
    report(ChannelOpened("plc-1", 1, "web", "198.51.100.1:1", 1.0))
    for reason in (Ended.REFUSED, Ended.CLOSED):
        report(ChannelEnded("plc-1", 1, "web", "198.51.100.1:1", reason, "", 1.0, 1000, 2000))
    desk.advance(10.0)
    after = read(desk)
    assert after["revtunnel_handshakes_refused_total reason=denied"] == 1
    assert after["revtunnel_dials_total result=ok"] == after["revtunnel_dials_total result=refused"] == 1
    assert after["revtunnel_channels_ended_total reason=closed"] == 1
    assert after["revtunnel_bytes_total direction=to_device"] == 2000
    assert after["revtunnel_bytes_total direction=to_client"] == 4000
    assert after["revtunnel_loop_delay_seconds_count"] == 10
    assert after["revtunnel_ports pool=default,state=leased"] == 2
    assert after["process_open_fds"] > 0
    desk.web.stop()


def test_no_label_grows_with_devices_unless_a_setting_asks() -> None:
    """As many lines for three as for one; then a few for each, a serial in each."""
    few, many = (set(read(Desk(OPEN, serials=serials))) for serials in (("a",), ("a", "b", "c")))
    assert few == many
    each = read(Desk(OPEN | {DEVICE_METRICS}, serials=("a", "b")))
    assert each["revtunnel_device_online serial=b"] == 1
    assert each["revtunnel_device_bytes_total direction=to_client,serial=a"] == 0


def test_services_that_agents_look_at_are_counted_by_state() -> None:
    """By device and name only where the setting asks, and nothing is said of those that nobody looks at."""
    desk = Desk(OPEN, serials=("a", "b"))
    for serial, up in (("a", True), ("b", False)):
        (name, *_) = desk.server_link(serial).mux.offered
        desk.server_link(serial).mux.service_states[name] = ServiceState(name, up)
    found = read(desk)
    assert (found["revtunnel_services state=up"], found["revtunnel_services state=down"]) == (1, 1)
    assert not [each for each in found if "serial" in each]
    desk.rules = replace(desk.rules, parts=desk.rules.parts | {DEVICE_METRICS})
    each = {name: value for name, value in read(desk).items() if "service_up" in name}
    assert sorted(each.values()) == [0, 1]
    assert [name.split("serial=")[1][0] for name, value in each.items() if not value] == ["b"]


def test_names_are_as_prometheus_wants_them() -> None:
    """A prefix, base units, _total of what only grows; help for each."""
    text = Desk(OPEN).ask("GET", "/metrics", "", None, ACCEPT).body.decode()
    kinds = dict(re.findall(r"^# TYPE (\S+) (\S+)$", text, re.MULTILINE))
    helps = dict(re.findall(r"^# HELP (\S+) (.+)$", text, re.MULTILINE))
    for name, kind in kinds.items():
        assert re.fullmatch(r"(revtunnel|process)_[a-z_]+", name)
        assert not re.search(r"_(ms|milliseconds|kb|percent|total|count)$", name), name
        assert kind in ("gauge", "counter", "histogram", "info")
        assert helps[name]


def known() -> set[str]:
    """Names of samples that there can be."""
    text = Desk(OPEN | {DEVICE_METRICS}).ask("GET", "/metrics", "", None, ACCEPT).body.decode()
    endings = {"counter": ["_total"], "histogram": ["_bucket", "_count", "_sum"], "info": ["_info"]}
    kinds = re.findall(r"^# TYPE (\S+) (\S+)$", text, re.MULTILINE)
    return {name + ending for name, kind in kinds for ending in endings.get(kind, [""])}


@pytest.mark.parametrize("path", [ALERTS, BOARD], ids=lambda path: path.name)
def test_what_alerts_and_the_dashboard_name_is_there(path: Path) -> None:
    """Every metric, by the name of its samples."""
    text = path.read_text(encoding="utf-8")
    named = set(re.findall(r"\b(?:revtunnel|process)_[a-z_]+\b", text))
    assert len(named) > 8
    assert named - known() == set()


def test_the_dashboard_is_one() -> None:
    """JSON, every panel with its own place and an expression."""
    board = json.loads(BOARD.read_text(encoding="utf-8"))
    places = [(each["gridPos"]["x"], each["gridPos"]["y"]) for each in board["panels"]]
    assert len(set(places)) == len(places)
    assert all(target["expr"] for each in board["panels"] for target in each["targets"])


def test_the_alerts_are_rules() -> None:
    """As promtool reads them, where it is; else as YAML."""
    promtool = shutil.which("promtool")
    if promtool is not None:
        subprocess.run([promtool, "check", "rules", str(ALERTS)], check=True, capture_output=True)
    yaml = pytest.importorskip("yaml")
    [group] = yaml.safe_load(ALERTS.read_text(encoding="utf-8"))["groups"]
    assert all({"alert", "expr", "labels", "annotations"} <= set(each) for each in group["rules"])
