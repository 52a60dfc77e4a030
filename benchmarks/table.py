"""Figures of several passes -> medians, spread, ratios, and the Markdown of them.  Pure: no clock or file."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

__all__ = ["ROWS", "Row", "best_peers", "markdown", "medians", "number", "ratios", "spreads"]

Figures = Mapping[str, float]
Table = dict[str, dict[str, float]]  # system -> key -> value


@dataclass(frozen=True)
class Row:
    """One compared figure; `up`: more is better.  `sums`: keys that are added to make it."""

    key: str
    title: str
    up: bool
    sums: tuple[str, ...] = ()


BULK = ("up_1", "up_16", "down_1", "down_16")
ROLES = ("server", "agent")

ROWS: tuple[Row, ...] = (
    Row("up_1", "up, 1 stream", True),
    Row("up_16", "up, 16 streams", True),
    Row("down_1", "down, 1 stream", True),
    Row("down_16", "down, 16 streams", True),
    *(
        Row(
            f"cpu_{bulk}",
            f"CPU s/GiB, {bulk.replace('_', ' ')}",
            False,
            tuple(f"cpu_{bulk}_{r}" for r in ROLES),
        )
        for bulk in BULK
    ),
    Row("ping_p50", "ping p50", False),
    Row("ping_p99", "ping p99", False),
    Row("cpu_ping", "CPU us, ping", False, ("cpu_ping_server", "cpu_ping_agent")),
    Row("ping_beside_p50", "ping p50 beside bulk", False),
    Row("ping_beside_p99", "ping p99 beside bulk", False),
    Row("ping_beside_bulk", "the bulk beside it", True),
    Row("connect_1", "connections/s, 1", True),
    Row("connect_16", "connections/s, 16", True),
    *(
        Row(
            f"cpu_connect_{count}",
            f"CPU us, connection, {count}",
            False,
            tuple(f"cpu_connect_{count}_{r}" for r in ROLES),
        )
        for count in (1, 16)
    ),
    Row("idle_pss", "memory idle", False, ("idle_pss_server", "idle_pss_agent")),
    Row("held_pss", "memory, idle connections", False, ("held_pss_server", "held_pss_agent")),
    Row("held_kib", "memory of one idle connection", False),
    Row("stall_rate", "rate beside a stalled stream", True),
)


def with_sums(figures: Figures) -> dict[str, float]:
    """Add the rows that are sums, where every part of them is there."""
    added = {
        row.key: sum(figures[key] for key in row.sums)
        for row in ROWS
        if row.sums and all(key in figures for key in row.sums)
    }
    return {**figures, **added}


def _series(passes: Sequence[Mapping[str, Figures]]) -> dict[str, dict[str, list[float]]]:
    series: dict[str, dict[str, list[float]]] = {}
    for one in passes:
        for system, figures in one.items():
            for key, value in with_sums(figures).items():
                series.setdefault(system, {}).setdefault(key, []).append(value)
    return series


def medians(passes: Sequence[Mapping[str, Figures]]) -> Table:
    """Median over the passes in which a system has the figure; systems in the order of the first pass."""
    return {s: {key: median(values) for key, values in keys.items()} for s, keys in _series(passes).items()}


def spreads(passes: Sequence[Mapping[str, Figures]]) -> Table:
    """(largest - smallest) / median over the passes; only with two passes and a median above 0."""
    return {
        system: {
            key: (max(values) - min(values)) / median(values)
            for key, values in keys.items()
            if len(values) > 1 and median(values) > 0
        }
        for system, keys in _series(passes).items()
    }


def best_peers(table: Table, peers: Iterable[str]) -> dict[str, tuple[str, float]]:
    """For each row the peer with the best median, and that median."""
    best: dict[str, tuple[str, float]] = {}
    for row in ROWS:
        found = [(table[peer][row.key], peer) for peer in peers if row.key in table.get(peer, {})]
        if found:
            value, peer = max(found) if row.up else min(found)
            best[row.key] = (peer, value)
    return best


def ratios(table: Table, reference: Figures) -> Table:
    """Each figure of ROWS divided by the reference's, where that is above 0."""
    return {
        system: {
            row.key: figures[row.key] / reference[row.key]
            for row in ROWS
            if row.key in figures and reference.get(row.key, 0) > 0
        }
        for system, figures in table.items()
    }


def number(value: float | None, digits: int = 3) -> str:
    """Three significant digits, thousands with a comma; an en dash for what was not measured."""
    if value is None:
        return "–"
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return "0" if value == 0 else f"{value:#.{digits}g}".rstrip(".")


def grid(header: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """A Markdown table; the first column is text, the others are numbers."""
    rule = ["---"] + ["---:"] * (len(header) - 1)
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (header, rule, *lines)) + "\n"


def _pair(figures: Figures, *keys: str) -> str:
    return " / ".join(number(figures.get(key)) for key in keys)


def _mean_cpu(figures: Figures, role: str) -> float | None:
    values = [figures[key] for bulk in BULK if (key := f"cpu_{bulk}_{role}") in figures]
    return sum(values) / len(values) if values else None


WIDE = (
    "system",
    "up 1 / 16 streams, 10^6 B/s",
    "down 1 / 16",
    "CPU s/GiB server / agent",
    "ping p50 / p99, µs",
    "ping p50 / p99 beside bulk, µs",
    "connections/s 1 / 16 at a time",
    "CPU µs, both: ping, connection 1 / 16",
    "memory idle server / agent, MiB",
    "the same with idle connections",
    "KiB per idle connection, both",
)


def _wide_line(system: str, figures: Figures) -> list[str]:
    return [
        system,
        _pair(figures, "up_1", "up_16"),
        _pair(figures, "down_1", "down_16"),
        " / ".join(number(_mean_cpu(figures, role)) for role in ROLES),
        _pair(figures, "ping_p50", "ping_p99"),
        _pair(figures, "ping_beside_p50", "ping_beside_p99"),
        _pair(figures, "connect_1", "connect_16"),
        _pair(figures, "cpu_ping", "cpu_connect_1", "cpu_connect_16"),
        _pair(figures, "idle_pss_server", "idle_pss_agent"),
        _pair(figures, "held_pss_server", "held_pss_agent"),
        _pair(figures, "held_kib"),
    ]


def _absolute(table: Table) -> str:
    return grid(WIDE, (_wide_line(system, figures) for system, figures in table.items()))


def _by_row(table: Table, percent: bool = False) -> str:
    """One line for each row of ROWS, one column for each system."""

    def cell(value: float | None) -> str:
        return f"{value:.0%}" if percent and value is not None else number(value)

    lines = [
        [f"{row.title} {'↑' if row.up else '↓'}", *(cell(figures.get(row.key)) for figures in table.values())]
        for row in ROWS
        if any(row.key in figures for figures in table.values())
    ]
    return grid(["row", *table], lines)


def _cpu(table: Table) -> str:
    header = ["system"] + [f"{bulk.replace('_', ' ')}, server / agent" for bulk in BULK]
    header += ["generator busy", "service busy"]
    lines = [
        [system]
        + [_pair(figures, *(f"cpu_{bulk}_{role}" for role in ROLES)) for bulk in BULK]
        + [f"{_busiest(figures, role):.0%}" for role in ("generator", "service")]
        for system, figures in table.items()
    ]
    return grid(header, lines)


def _busiest(figures: Figures, role: str) -> float:
    """Return the largest share of a core that a role used over the bulk rows."""
    return max(
        (figures.get(f"cpu_{bulk}_{role}", 0.0) * figures.get(bulk, 0.0) * 1e6 / 2**30 for bulk in BULK),
        default=0.0,
    )


def _resident(table: Table) -> str:
    header = ["system", "idle, server / agent, MiB", "with idle connections", "connections held", "agents"]
    lines = [
        [
            system,
            _pair(figures, "idle_rss_server", "idle_rss_agent"),
            _pair(figures, "held_rss_server", "held_rss_agent"),
            number(figures.get("held_count"), 4),
            f"{figures.get('held_agents', 0):.0f}",
        ]
        for system, figures in table.items()
        if "idle_rss_server" in figures
    ]
    return grid(header, lines)


def _others(table: Table) -> str:
    found = [
        f"{system} {number(figures['others'], 2)}" for system, figures in table.items() if "others" in figures
    ]
    return ", ".join(found) or "not measured"


def _stalled(table: Table) -> str:
    header = [
        "system",
        "seven of eight, no stall, 10^6 B/s",
        "the seven beside the stall",
        "their slowest, times 7",
    ]
    header += ["server grew, MiB", "agent grew, MiB"]
    keys = ("stall_free", "stall_rate", "stall_slowest", "stall_growth_server", "stall_growth_agent")
    lines = [
        [system, *(number(figures.get(key)) for key in keys)]
        for system, figures in table.items()
        if "stall_rate" in figures
    ]
    return grid(header, lines)


NOTES = """\
- Everything on loopback, one machine; figures are medians of the passes. Compare within one run only.
- Senders copy; receivers of the load discard in the kernel, so that the load costs little. "direct" is that load alone.
- CPU: user and system seconds of all processes of a role, for each GiB that arrived within the window.
- Memory: proportional set size, in its own table resident set size; sums over the processes of a role (sshd forks).
- A framed link of revtunnel carries at most 255 channels, so idle connections need several agents of distinct serials;
  "agent" is then their sum. One idle connection: what the processes of both sides grew by, divided by the connections.
- haproxy x2: "server" is the one in front, "agent" the one behind.
- Stalled stream: eight streams down, the client of the first stops reading; 1.00 is 7/8 of what eight free streams get.
"""  # noqa: E501


def markdown(
    table: Table,
    spread: Table,
    peers: Sequence[str],
    reference: str,
    facts: Mapping[str, object],
    remarks: Sequence[str],
) -> str:
    """Return the whole report; `facts`: machine and versions; `remarks`: what went wrong or was left out."""
    best = best_peers(table, peers)
    parts = ["# Relay benchmark\n", *(f"- {name}: {value}" for name, value in facts.items())]
    parts += ["\n## Medians\n", _absolute(table)]
    if reference in table:
        parts += [
            f"## Ratio to {reference} (↑ more is better, ↓ less is better)\n",
            _by_row(ratios(table, table[reference])),
        ]
    if best:
        parts += [
            "## Ratio to the best peer of each row\n",
            _by_row(ratios(table, {k: v for k, (_, v) in best.items()})),
        ]
        parts += [
            "Best peer: " + "; ".join(f"{r.title}: {best[r.key][0]}" for r in ROWS if r.key in best) + ".\n"
        ]
    parts += ["## CPU seconds per GiB, and how busy the load itself was (share of a core)\n", _cpu(table)]
    parts += ["## Resident memory\n", _resident(table), "## One stalled stream of eight\n", _stalled(table)]
    parts += ["## Noise: (largest - smallest) / median over the passes\n", _by_row(spread, percent=True)]
    parts += [f"Cores that something else kept busy meanwhile (median): {_others(table)}.\n"]
    parts += ["## Notes\n", NOTES + "".join(f"- {remark}\n" for remark in remarks)]
    return "\n".join(parts)
