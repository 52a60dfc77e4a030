"""The limits of links, streams, agents, servers, with their units: what each may hold or wait.

Rule of this file: a number that bounds memory, time or count and that more than one room needs stands here;
a system's own stand beside it. What is written here is enforced where the comment says, or it is deleted.
What is declared with ``limit`` can be set (ground/declared.py); a bare number cannot.

Source: wire/link-extension.md "Flow control", "Liveness"; faults.md "Mechanisms, exact"; ours where noted.
"""

from dataclasses import dataclass

from revtunnel.ground.declared import limit, setting
from revtunnel.ground.kinds import GIB, KIB, MIB, count, nothing, seconds, share, size

__all__ = [
    "KIB",
    "MIB",
    "AgentLimits",
    "AuditLimits",
    "CameoLimits",
    "CccpLimits",
    "DataLimits",
    "EdgeLimits",
    "EmoLimits",
    "EnrolmentLimits",
    "FleetLimits",
    "LinkLimits",
    "PenaltyLimits",
    "PeopleLimits",
    "RelayLimits",
    "ServerLimits",
]

_ANY = count("connections", 1, 65535)
_MANY = count("connections", 1, 1_000_000)
_HOUR = seconds(1, 3600)
_COST = seconds(0, 3600)
_QUEUED = size(4 * KIB, GIB)

# fmt: off


@dataclass(frozen=True, slots=True)
class LinkLimits:
    """What one link may hold and how long it may be silent; both ends have one."""

    # link/liveness.py
    keepalive: float = limit(_HOUR, 25.0, "silence before a PING; below the time of any NAT on the way")
    busy_keepalive: float = limit(_HOUR, 5.0, "the same while sent data is unanswered")
    answer: float = limit(_HOUR, 20.0, "time a PING may stay unanswered")
    kernel_keepalive: float | None = setting(nothing("auto", _COST), "auto", "server: silence to which its "
        "agents grow, from keepalive, before their kernel probes the path in place of a PING; 0: they never "
        "do; auto: 60 s, or 0 with a keepalive below 25 s", live=True)
    hung: float = limit(_HOUR, 600.0, "time a process may say nothing whose kernel is there, before a PING")
    busy_answer: float = limit(_HOUR, 15.0, "the same while sent data is unanswered")
    # link/handshake.py
    handshake: float = limit(seconds(1, 120), 10.0, "time from connect to an accepted HELLO, absolute")
    probe: float = limit(seconds(0.1, 30), 1.0, "time a legacy listener waits for an answer to its offer")
    offers: int = limit(count("targets", 1, 255), 64, "targets that one agent may offer")
    # link/mux.py
    channels: int = limit(count("channels", 1, 255), 255, "channels at once")
    number_wait: float = limit(seconds(0, 60), 5.0, "time a client waits for a free channel number")
    waiting: int = limit(count("clients", 0, 65535), 256, "clients that may wait for one")
    frames_a_turn: int = 1024  # frames handled before the reactor gets its turn (F2)
    time_a_turn: float = 0.002  # seconds, likewise; looked at every 64 frames
    # streams/window.py
    first_window: int = limit(size(4 * KIB, 16 * MIB), 64 * KIB, "credit of a new channel")
    open_window: int = limit(_QUEUED, 256 * KIB, "credit once the target has answered")
    largest_window: int = limit(_QUEUED, 4 * MIB, "credit that tuning may reach on a channel")
    link_pool: int = limit(size(0, 16 * GIB), 16 * MIB, "credit beyond first_window, all channels")
    violations: int = 3  # channels that overspend their credit before the link is closed
    # link/send_scheduler.py
    queue: int = limit(size(4 * KIB, 16 * MIB), 64 * KIB, "what a channel may queue before its socket is "
        "paused")
    frame: int = 16 * KIB  # bytes of DATA in one turn while others wait; a quarter of a quantum above 64 KiB
    lone_frame: int = 65535  # bytes of DATA in one frame while no other channel waits
    smallest_quantum: int = 4 * KIB  # bytes handed to the kernel at once on a slow link
    largest_quantum: int = 256 * KIB  # the same on a fast one
    # link/legacy.py: a legacy wire has no credit
    legacy_queue_hard: int = limit(_QUEUED, 4 * MIB, "legacy: owed to one socket before the link is paused")
    legacy_link_queue: int = limit(_QUEUED, 16 * MIB, "legacy: owed to all sockets before the link is paused")
    legacy_stall: float = limit(_HOUR, 30.0, "legacy: time a paused link waits for its slowest socket, then "
        "resets it")
    early_data: int = limit(size(0, 16 * MIB), 64 * KIB, "legacy: held for a channel whose CONNECT has not "
        "come yet")
    early_wait: float = limit(seconds(0, 60), 1.0, "legacy: time it is held")
    echo_wait: float = limit(seconds(1, 600), 60.0, "legacy: silence after which a missing echo CLOSE counts "
        "as seen")
    legacy_linger: float = limit(seconds(0, 600), 5.0, "legacy: time a service may be silent after its "
        "client's CLOSE")
    legacy_answer: float = limit(_HOUR, 150.0, "legacy: time a device may answer nothing while its TCP still "
        "answers; it does so while it dials")
    legacy_refusal: float = limit(seconds(0, 60), 0.1, "legacy: time after a channel was taken for opened in "
        "which the device's CLOSE, before any byte, says that the target refused; 0: never")
    legacy_glitches: int = limit(count("glitches", 1, 1_000_000), 3, "the same as glitches on a legacy link")
    # link/mux.py
    glitches: int = limit(count("glitches", 1, 1_000_000), 100, "oddities in glitch_window before a link is "
        "closed")
    glitch_window: float = limit(_HOUR, 60.0, "see glitches")
    late_frames: int = 64  # rt1: frames without data for a channel that we have ended; more are oddities
    idle_frames: int = 10_000  # legacy and EMO: frames in glitch_window that change nothing


@dataclass(frozen=True, slots=True)
class DataLimits:
    """What a server spends on the data sockets of one link."""

    # carriers/warm_pool.py
    warm: int = limit(count("sockets", 0, 1024), 2, "sockets of one agent that wait for its next client, "
        "while there are clients now and then")
    warm_most: int = limit(count("sockets", 1, 1024), 64, "sockets of one agent that wait or are on their "
        "way")
    warm_idle: float = limit(seconds(1, 86400), 60.0, "time without a client after which none waits")
    # carriers/data_sockets.py
    wait: float = limit(seconds(0, 60), 3.0, "time a client waits for a socket before it goes by the link")
    # carriers/warm_pool.py
    retry: float = limit(_HOUR, 30.0, "time that clients go by the link at once after no socket came")
    # carriers/data_sockets.py
    answer: float = limit(seconds(0.1, 60), 0.5, "time an agent's machine has to acknowledge a CONNECT, or "
        "four round trips if that is more; then another socket is tried")
    # carriers/tickets.py
    ticket: float = limit(seconds(1, 300), 30.0, "time an agent has to bring a socket")


@dataclass(frozen=True, slots=True)
class EnrolmentLimits:
    """What a server spends on devices that ask for a certificate (trust/enrolment.py)."""

    token_life: float = limit(seconds(60, 30 * 86400), 3600.0, "time a one-time token is good")
    tokens: int = limit(count("tokens", 1, 100_000), 1000, "tokens that wait to be used")
    wrong_tries: int = limit(count("tries", 1, 1000), 10, "failures of one address within wrong_window "
        "before it is refused for as long; behind NAT many devices share one")
    wrong_window: float = limit(seconds(1, 86400), 600.0, "see wrong_tries")
    sources: int = limit(count("addresses", 16, 1_000_000), 4096, "addresses that failed and are remembered")
    renewals: int = limit(count("certificates", 1, 1000), 16, "certificates that one device gets in 24 hours")


@dataclass(frozen=True, slots=True)
class PeopleLimits:
    """What a server keeps of people and of what they may do."""

    # trust/people.py
    users: int = 10_000  # users in all
    groups: int = 1000  # groups in all
    groups_per_user: int = 32  # groups that one user is in
    tokens_per_user: int = 16  # tokens of one user that are good
    browsers_per_user: int = 8  # browsers of one user that are logged in
    browser_life: float = 12 * 3600.0  # seconds that a browser is logged in at most
    browser_idle: float = 1800.0  # seconds without a request after which it is logged in no more
    token_life: float = 90 * 86_400.0  # seconds a token is good where nothing is asked for
    token_longest: float = 366 * 86_400.0  # seconds that may be asked for
    uses_wait: float = 60.0  # seconds that the time of a last use may wait to be written
    uses_waiting: int = 1000  # tokens whose last use waits; one more, and all are written
    # trust/grants.py
    grants: int = 10_000  # grants in all
    grants_per_holder: int = 200  # grants of one user or one group
    services: int = 64  # names and patterns of services in one grant


@dataclass(frozen=True, slots=True)
class AuditLimits:
    """What the audit file holds, state/audit_file.py."""

    size: int = limit(size(64 * KIB, 64 * GIB), 64 * MIB, "after which another file is begun")
    files: int = limit(count("files", 1, 10_000), 16, "kept, the one being written among them")
    tail: int = MIB  # bytes at a file's end that are searched for its last whole record


@dataclass(frozen=True, slots=True)
class AgentLimits:
    """What an agent spends on dialling targets and on coming back."""

    # carriers/agent_data.py
    data_most: int = limit(count("sockets", 0, 65535), 4096, "data sockets at once, waiting or in use")
    data_dials: int = limit(count("dials", 1, 1024), 32, "data sockets on their way to the server")
    data_ticket: float = limit(seconds(1, 300), 25.0, "time after which one that was not begun is given up")
    # streams/dialler.py, link/backoff.py
    dial: float = limit(seconds(0.1, 300), 10.0, "time for one target, name resolution included")
    dials: int = limit(count("dials", 1, 1024), 64, "dials in flight per link")
    dials_waiting: int = limit(count("dials", 0, 65535), 256, "dials that wait their turn; more are refused")
    line: int = limit(count("dials", 0, 65535), 64, "dials that wait where at_once of [agent] is reached")
    line_wait: float = limit(seconds(0.1, 600), 10.0, "time that they do")
    lookups: int = limit(count("lookups", 1, 8), 4, "name resolutions in flight")
    retry_first: float = limit(seconds(0.1, 60), 0.5, "longest first wait before a new try; doubles each "
        "time")
    retry_most: float = limit(_HOUR, 60.0, "longest wait of all")
    stable: float = limit(_HOUR, 60.0, "time a link must live before the waits start over")
    connect: float = limit(seconds(1, 300), 10.0, "time for the connection to a server")
    # link/path_keepalive.py
    keepalive_least: float = limit(seconds(0.1, 60), 2.0, "shortest silence that keepalive = auto comes to")


@dataclass(frozen=True, slots=True)
class PenaltyLimits:
    """What failures cost their source, fleet/penalties.py: seconds for which it is not listened to."""

    authentication: float = limit(_COST, 5.0, "cost of a wrong proof or certificate; 0: none")
    silence: float = limit(_COST, 10.0, "cost of a handshake that was not finished in time")
    garbage: float = limit(_COST, 10.0, "cost of what is no handshake")
    hangup: float = limit(_COST, 0.5, "cost of a connection that ended without one: two a second are free")
    applied: float = limit(seconds(0, 86400), 15.0, "an address that owes more is refused until it owes "
        "nothing")
    most: float = limit(seconds(1, 86400), 600.0, "what one address owes at most")
    sources: int = limit(count("addresses", 16, 1_000_000), 65_536, "addresses that are remembered, and "
        "serials")
    known: float = limit(seconds(0, 30 * 86400), 86400.0, "time that an address is known from which a device "
        "proved itself, after its link; see pending, and has more tries when it owes too much; 0: none")
    serial_failures: int = limit(count("failures", 2, 1000), 10, "wrong proofs for one serial in "
        "serial_window before the addresses they came from are locked out of it")
    serial_window: float = limit(seconds(1, 86400), 600.0, "see serial_failures")
    serial_lockout: float = limit(seconds(0, 86400), 600.0, "how long they are")


@dataclass(frozen=True, slots=True)
class FleetLimits:
    """What a fleet bears of a serial that comes again and again, fleet/fleet.py."""

    duplicate_swaps: int = limit(count("links", 1, 1000), 3, "links of one serial that may replace each "
        "other within duplicate_window before it has two holders, if their agents do not say which run they "
        "are")
    duplicate_window: float = limit(_HOUR, 60.0, "see duplicate_swaps")


@dataclass(frozen=True, slots=True)
class ServerLimits(FleetLimits):
    """What a server spends on peers it does not know yet, on clients, and in all."""

    pending: int = limit(_ANY, 512, "agents that have not finished their handshake; the last quarter is kept "
        "for addresses that are known")
    pending_per_source: int = limit(_ANY, 64, "the same from one address; behind NAT many devices share one")
    handshakes: int = limit(_ANY, 200, "TLS handshakes in progress; the next ones wait")
    proxy_header: int = limit(size(536, 64 * KIB), 4 * KIB, "a PROXY header v2 with all its entries")
    proxy_wait: float = limit(seconds(1, 60), 5.0, "time from connect to the end of a PROXY header, absolute")
    clients: int = limit(_MANY, 10_000, "clients in all")
    clients_per_device: int = limit(_ANY, 4096, "clients of one device")
    ended_wait: float = limit(seconds(0, 10), 0.1, "time a client waits until those of its service that have "
        "ended are closed at the device too, which may take one at a time; 0: none")
    line: int = limit(count("clients", 0, 65535), 64, "clients of one service that wait where at_once of "
        "[device SERIAL] is reached")
    line_wait: float = limit(seconds(0.1, 600), 10.0, "time that they do")
    pool: int = limit(size(0, 64 * GIB), 256 * MIB, "credit beyond first_window, all links")
    descriptors: float = limit(share(0.1, 1.0), 0.85, "share of the file descriptors that connections may "
        "use")
    descriptors_kept: int = limit(count("descriptors", 8, 4096), 32, "kept for links and the admin socket")
    herd_spread: float = limit(seconds(0, 600), 1.0, "time over which agents spread their return; 10 s for "
        "thousands of agents, 30 s above 20000")
    retry_after: int = limit(count("seconds", 0, 3600), 0, "time a leaving server asks its agents to stay "
        "away")
    backlog: int = limit(_ANY, 4096, "connections the kernel queues per listening socket", live=False)
    # fleet/waking.py
    wakes: int = limit(count("drivers", 1, 1000), 16, "legacy devices that are woken at once; the next ones "
        "wait in line")
    wake: float = limit(seconds(1, 600), 20.0, "time that waking one may take")
    wake_first: float = limit(seconds(1, 86400), 60.0, "time after which one that did not come is woken "
        "again, and before which none is; doubles each time")
    wake_most: float = limit(seconds(1, 30 * 86400), 3600.0, "longest of these times")


@dataclass(frozen=True, slots=True)
class CameoLimits:
    """What the CAMEO relays hold for their peers, and how long they wait for them."""

    # daemons/cameo.py
    drain: float = limit(seconds(0, 600), 5.0, "time that peers get to take what waits for them when the "
        "relays stop")
    # systems/cameo/zmtp.py
    message: int = limit(size(64 * KIB, 4 * GIB), 64 * MIB, "one message, all its frames together")
    frames: int = limit(count("frames", 8, 65535), 64, "frames of one message")
    # systems/cameo/cameo_outbox.py
    queue_messages: int = limit(count("messages", 1, 10_000_000), 10_000, "messages that wait for a peer "
        "that does not take them; further ones are dropped whole, and counted")
    queue: int = limit(size(64 * KIB, 16 * GIB), 64 * MIB, "bytes of them; a single message may be larger")
    # systems/cameo/cameo_outbox.py, systems/cameo/relays.py
    pool: int = limit(size(MIB, 256 * GIB), 512 * MIB, "what waits for all peers together, with messages "
        "that are not whole")
    # systems/cameo/cameo_topics.py
    topics: int = limit(count("topics", 1, 1_000_000), 10_000, "topics of one subscriber")
    topics_per_source: int = limit(count("topics", 1, 10_000_000), 100_000, "topics of all subscribers on "
        "one other machine")
    topic: int = limit(count("bytes", 1, 4000), 255, "length of a topic")
    # systems/cameo/cameo_admission.py
    connections: int = limit(count("connections", 8, 1_000_000), 4096, "connections in all; the last quarter "
        "is kept for this machine")
    connections_per_source: int = limit(_MANY, 512, "connections of one other machine")
    # systems/cameo/zmtp_peer.py
    handshake: float = limit(seconds(1, 120), 10.0, "time from connect to a peer's READY, absolute")
    idle_frames: int = 10_000  # commands in a minute that change nothing: PING, and what nobody knows
    # daemons/cameo.py
    backlog: int = limit(_ANY, 1024, "connections the kernel queues per listening socket", live=False)


@dataclass(frozen=True, slots=True)
class CccpLimits:
    """What CCCP holds for devices that register, for callers of its API, and how long it waits for them."""

    # systems/cccp/registered_devices.py
    registration: float = limit(seconds(1, 120), 10.0, "time from connect to the end of a serial, with TLS, "
        "absolute")
    pending: int = limit(_MANY, 8192, "connections that have not said their serial; the last quarter is kept "
        "for addresses from which one showed a certificate")
    pending_per_source: int = limit(_MANY, 2048, "the same from one address; behind NAT many devices share "
        "one")
    handshakes: int = limit(_MANY, 200, "TLS handshakes in progress; the next ones wait")
    parked: int = limit(_MANY, 50_000, "devices that are registered")
    parked_per_source: int = limit(_MANY, 25_000, "the same from one address, but for those that showed a "
        "certificate")
    parked_time: float = limit(seconds(0, 3650 * 86400), 0.0, "time one may stay without a proxy; 0: for "
        "ever")
    backlog: int = limit(_ANY, 4096, "connections the kernel queues per listening socket", live=False)
    # systems/cccp/device_carrier.py
    busy_wait: float = limit(seconds(0, 300), 10.0, "time that a client of a session waits for a device that "
        "another client has; 0: none does")
    busy_clients: int = limit(count("clients", 1, 1000), 16, "clients of one device that wait so")
    # systems/cccp/http_api.py
    connections: int = limit(_MANY, 512, "callers of the API at once")
    header: float = limit(seconds(1, 120), 10.0, "time for a whole request, absolute")
    body: int = limit(size(0, 1024 * 1024), 4096, "body of a request")
    wait: float = limit(seconds(0, 3600), 300.0, "longest wait= of a caller")
    waiting: int = limit(_MANY, 256, "callers that wait at once")
    # process/wake.py
    wakes: int = limit(count("drivers", 1, 1000), 16, "wake drivers that run at once")
    wake: float = limit(seconds(1, 600), 20.0, "time one may take")
    # daemons/cccp.py
    drain: float = limit(seconds(0, 3600), 10.0, "time that connected clients get when revtunnel-cccp stops")


@dataclass(frozen=True, slots=True)
class RelayLimits:
    """What joined pairs of sockets move at once and hold for a side that does not take it."""

    # sockets/relay.py
    first: int = limit(size(16 * KIB, MIB), 64 * KIB, "a reading, to begin with and whenever not all was "
        "taken")
    turn: int = limit(size(16 * KIB, MIB), 512 * KIB, "the largest reading; more is faster, less is kinder "
        "to others")
    calm: int = limit(count("readings", 0, 65535), 256, "readings that stay small once somebody said little")
    pool: int = limit(size(MIB, 16 * GIB), 64 * MIB, "held for all sides that take nothing before readings "
        "are small")
    flush: float = limit(_HOUR, 60.0, "time a side may take for the last bytes once both have ended")


@dataclass(frozen=True, slots=True)
class EmoLimits:
    """What the ends of an EMO command socket hold and wait for; the original's numbers where it has one."""

    # systems/emo/emo_sockets.py
    sockets: int = limit(count("sockets", 1, 999), 50, "data sockets of one machine, clients that wait among "
        "them")
    wait: float = limit(seconds(1, 600), 30.0, "time a client waits for its data socket")
    # systems/emo/emo_server.py, systems/emo/emo_agent.py
    first: float = limit(seconds(0.1, 60), 3.0, "time from connect to the first command, absolute")
    heartbeat: float = limit(_HOUR, 10.0, "silence before a PING")
    silence: float = limit(_HOUR, 30.0, "silence after which the other side is gone, if it took part in PING "
        "and PONG")
    idle: float = limit(seconds(1, 86400), 600.0, "time after which the agent closes a data socket that "
        "nobody uses")
    unasked: int = limit(count("sockets", 1, 1000), 4, "data sockets that nobody asked for before the "
        "machine's command socket is closed")
    held: int = limit(size(4 * KIB, 16 * MIB), 256 * KIB, "what a stream may have on its way to a side that "
        "takes nothing")
    nul_wait: float = limit(seconds(0.01, 60), 0.05, "time after which NULs at the end of a message, which "
        "might begin a terminator, are passed on all the same")
    idle_frames: int = 10_000  # at the agent: commands in a minute that change nothing
    # systems/emo/emo_choice.py
    ask_again: float = limit(seconds(1, 30 * 86400), 60.0, "time after which the agent offers rt1 again, "
        "with its next connection, to a server that hung up on it; see modern")


@dataclass(frozen=True, slots=True)
class EdgeLimits:
    """What one ThingWorx device and its tunnels may cost."""

    # systems/thingworx/edge_tunnels.py
    tunnels: int = limit(count("tunnels", 1, 255), 8, "of one device at once, one for each client; of eight "
        "the SDK drops one now and then")
    waiting: int = limit(count("clients", 0, 65535), 64, "clients of one device that wait for one")
    wait: float = limit(seconds(0.1, 600), 30.0, "time that a client waits for a place, and for the device "
        "to bring it")
    # systems/thingworx/edge_tunnel.py
    settle: float = limit(seconds(0, 60), 0.25, "time before the first byte to a device, which loses what "
        "comes at once")
    hold: float = limit(seconds(0.1, 3600), 30.0, "silence after a client's end of file, which no tunnel can "
        "carry, before both ends are cut")
    quiet: float = limit(seconds(0, 60), 0.25, "time without a byte after which the end of a service has "
        "overtaken none")
    held: int = limit(size(64 * KIB, 64 * MIB), MIB, "what a client may have to take before its tunnel is "
        "not read, which the SDK bears for 0.1 s")
    # systems/thingworx/edge_link.py
    first: float = limit(seconds(1, 120), 10.0, "time from the WebSocket to a good BIND, absolute")
