"""What the settings of a server must not say together: listeners that are too wide, ports with two owners.

Rule of this file: every fault is a complaint about the key where it stands; nothing is changed.

Source: faults.md C5, "Bind defaults"; ours.
"""

from collections import Counter
from collections.abc import Iterator
from itertools import pairwise

from revtunnel.cluster.engine_settings import engine_faults
from revtunnel.daemons.legacy_devices import check_legacy, fixed_ports
from revtunnel.daemons.proxy_settings import check_senders
from revtunnel.daemons.server_settings import ListenerSettings, ServerSettings
from revtunnel.fleet.device_records import DEFAULT
from revtunnel.ground.networks import is_loopback
from revtunnel.ground.targets import parse_endpoint
from revtunnel.settings.inifile import Name, Table
from revtunnel.sockets.tls.certificates import FaultyFiles, read_credentials
from revtunnel.trust.tls_settings_checks import check_listener_tls, check_plaintext, listener_rules

__all__ = ["check_clients", "check_cluster", "check_listeners", "check_ports"]


def check_listeners(table: Table, settings: ServerSettings) -> None:
    """Each listener by itself; an open listener without keys must have been asked for by name."""
    pools = {pool.name for pool in settings.pools}
    for listener in settings.listeners:
        label = f"listener {listener.name}"
        if listener.pool not in pools:
            table.complain(label, "pool", f"there is no [pool {listener.pool}]")
        _check_kind(table, label, listener)
        check_listener_tls(table, label, listener)
        check_senders(table, label, listener)
        _check_width(table, label, listener)
    check_legacy(table, settings)
    for label, name in (("thingworx", settings.thingworx.pool), ("localproxy", settings.localproxy.pool)):
        if name not in pools and (label, "pool") in table.values:
            table.complain(label, "pool", f"there is no [pool {name}]")
    for pool in settings.pools:
        check_senders(table, f"pool {pool.name}", pool)
    for each in settings.web:
        check_senders(table, f"web {each.name}", each)
        if each.pool not in pools:
            table.complain(f"web {each.name}", "pool", f"there is no [pool {each.pool}]")


def _check_width(table: Table, label: str, listener: ListenerSettings) -> None:
    """Whom a listener that other machines reach lets in, and whether in plain."""
    wide = [host for host, _ in listener.address if not is_loopback(host)]
    if not wide:
        return
    if listener.keys == "enrolled" and not listener.certified and not listener.allow_without_keys:
        keys = " or keys = required" if listener.kind == "rt1" else ""
        text = f"{wide[0]} lets devices without keys in from other machines"
        wanted = f"tls = yes with device_certificates = required{keys}, or, if that is meant"
        table.complain(label, "address", f"{text}, wanted: {wanted}, allow_without_keys = yes")
    check_plaintext(table, label, wide[0], listener)


_EMO_HAS = ("emo", "heartbeat")


def _check_kind(table: Table, label: str, listener: ListenerSettings) -> None:
    """What only a legacy listener has."""
    if listener.kind != "legacy":
        for key in ("serial", "mappings", "probe", "heartbeat", "wake_command", "wake_url"):
            if (
                table.get(label, key) != table.sections.find("listener", key).value
                and (listener.kind, key) != _EMO_HAS
            ):
                table.complain(label, key, "only with kind = legacy")
        if listener.kind == "emo" and listener.keys == "required":
            table.complain(label, "keys", "a machine of EMO has no key, keys = enrolled wanted")


def check_cluster(table: Table, settings: ServerSettings) -> None:
    """A node has one listener for others, whose certificate has its name, and knows the others somehow."""
    mine = settings.cluster
    doors = [each for each in settings.listeners if each.kind == "nodes"]
    if mine.node is None:
        for each in doors:
            table.complain(f"listener {each.name}", "kind", "nodes: node in [cluster] wanted with it")
        for key in ("address", "peers", "engine"):
            if getattr(mine, key):
                table.complain("cluster", key, "of no use without node")
        return
    if len(doors) != 1:
        table.complain("cluster", "node", f"one [listener NAME] with kind = nodes wanted, not {len(doors)}")
    if mine.engine is None and not mine.others:
        table.complain("cluster", "node", "peers, or an engine that knows them, wanted with it")
    if mine.engine is not None and mine.peers:
        table.complain("cluster", "peers", "of no use with an engine, which knows them")
    if mine.engine is not None and mine.address is None:
        table.complain("cluster", "address", "missing: with an engine others learn it from there")
    if mine.address is not None and parse_endpoint(mine.address)[0] in ("0.0.0.0", "::"):
        table.complain("cluster", "address", f"{mine.address}: others dial it, one of this machine wanted")
    for name, times in Counter(each.name for each in mine.peers).items():
        if times > 1:
            table.complain("cluster", "peers", f"{name} stands there {times} times")
    _check_everywhere(table, settings)
    for key, text in engine_faults(mine):
        table.complain("cluster", key, text)
    for each in doors:
        _check_node_listener(table, each, mine.node)


def _check_everywhere(table: Table, settings: ServerSettings) -> None:
    """Without an engine nobody can say which device has a number at all nodes, unless settings do."""
    reserved = {each.port for each in settings.reservations}
    for pool in settings.pools if settings.cluster.engine is None else ():
        label = f"pool {pool.name}"
        if pool.nodes != "all" or not table.sound(label, "ranges"):
            continue
        given = sum(high - low + 1 for low, high in pool.ranges)
        free = given - sum(any(low <= port <= high for low, high in pool.ranges) for port in reserved)
        if free:
            text = f"all: {free} of its {given} ports are not in [reservations], and without an engine"
            table.complain(label, "nodes", f"{text} two nodes would give one to two devices")


def _check_node_listener(table: Table, listener: ListenerSettings, node: str) -> None:
    label = f"listener {listener.name}"
    if not listener.certified:
        table.complain(label, "tls", "kind = nodes: tls = yes with device_certificates = required wanted")
        return
    rules = listener_rules(listener)
    if rules is None or not table.sound(label, "certificate", "certificate_key", "authority", "crl"):
        return
    try:
        found = read_credentials(rules.files).serial
    except FaultyFiles:  # which was told
        return
    if found not in ("", node):
        table.complain(label, "certificate", f"it is of node {found}; node = {node} in [cluster]")


def check_clients(table: Table, settings: ServerSettings) -> None:
    """Ports that other machines reach are for somebody who was named, by the pool or for all devices."""
    if (f"device {DEFAULT}", "clients") in table.values:
        return
    binds = [(f"pool {each.name}", "bind", each.bind, each.name) for each in settings.pools]
    mapped = ((device, each.client_host) for device, each, _ in fixed_ports(settings) if each.client_host)
    binds += [(device.label, "mappings", host, device.listener.pool) for device, host in mapped]
    for label, key, host, pool in binds:
        if is_loopback(host) or (f"pool {pool}", "clients") in table.origins:
            continue
        text = f"{host} is reached by other machines, which reach the devices then"
        where = "" if key == "bind" else f" in [pool {pool}]"
        wanted = f"clients = 10.1.0.0/16{where}, or whoever may, or, if that is meant, clients = any"
        table.complain(label, key, f"{text}, wanted: {wanted}")


def check_ports(table: Table, settings: ServerSettings) -> None:
    """No port has two owners: listeners, ranges, reservations, fixed ports of legacy devices."""
    owners: dict[tuple[str, int], str] = {}
    named = [(f"listener {each.name}", each.address) for each in settings.listeners]
    named += [(f"web {each.name}", each.address) for each in settings.web]
    for label, addresses in named:
        for address in addresses if table.sound(label, "address") else ():
            owner = owners.setdefault(address, label)
            if owner != label and address[1]:
                table.complain(label, "address", f"{address[0]} port {address[1]} is also that of [{owner}]")
    listening = {port: owner for (_, port), owner in owners.items() if port}
    _check_ranges(table, settings, listening)
    _check_fixed(table, settings, listening)


def _check_ranges(table: Table, settings: ServerSettings, listening: dict[int, str]) -> None:
    pools = [pool for pool in settings.pools if table.sound(f"pool {pool.name}", "ranges")]
    ranges = sorted((low, high, pool.name) for pool in pools for low, high in pool.ranges)
    for (low, high, name), (next_low, next_high, next_name) in pairwise(ranges):
        if next_low <= high:
            text = f"{next_low}-{next_high} overlaps {low}-{high} of [pool {name}]"
            table.complain(f"pool {next_name}", "ranges", text)
    for each in settings.web:
        first, last = each.device_ports or (1, 0)
        for low, high, name in ranges:
            if first <= high and low <= last:
                text = f"{first}-{last} overlaps {low}-{high} of [pool {name}]"
                table.complain(f"web {each.name}", "device_ports", text)
        for port in sorted(port for port in listening if first <= port <= last):
            text = f"{first}-{last} holds port {port}, where [{listening[port]}] listens"
            table.complain(f"web {each.name}", "device_ports", text)
    for low, high, name in ranges:
        for port in sorted(port for port in listening if low <= port <= high):
            text = f"{low}-{high} holds port {port}, where [{listening[port]}] listens"
            table.complain(f"pool {name}", "ranges", text)


def _check_fixed(table: Table, settings: ServerSettings, listening: dict[int, str]) -> None:
    owners: dict[int, Name] = {}
    for label, key, owner, port in _fixed(settings):
        first = owners.setdefault(port, owner)
        if first != owner:
            table.complain(label, key, f"port {port} is already that of {'/'.join(first)}")
        if port in listening:
            table.complain(label, key, f"port {port} is where [{listening[port]}] listens")


def _fixed(settings: ServerSettings) -> Iterator[tuple[str, str, Name, int]]:
    """Section, key, owner and port of everything with a port of its own."""
    for each in settings.reservations:
        yield "reservations", f"{each.serial}/{each.target}", (each.serial, each.target), each.port
    for device, mapping, use in fixed_ports(settings):
        yield device.label, "mappings", use, mapping.client_port
