"""Every limit in one place, each with its unit: what one link, one agent and one server may hold or wait.

Rule of this file: a number that bounds memory, time or count stands here and nowhere else; what is written
here is enforced somewhere (the comment says where), or it is deleted.

Source: wire/link-extension.md "Flow control", "Liveness"; faults.md "Mechanisms, exact"; ours where noted.
"""

from dataclasses import dataclass

__all__ = [
    "AgentLimits",
    "AuditLimits",
    "CameoLimits",
    "CccpLimits",
    "DataLimits",
    "EmoLimits",
    "EnrolmentLimits",
    "LinkLimits",
    "PenaltyLimits",
    "PeopleLimits",
    "RelayLimits",
    "ServerLimits",
]

KIB = 1024
MIB = 1024 * KIB


@dataclass(frozen=True, slots=True)
class LinkLimits:
    """What one link may hold and how long it may be silent; both ends have one."""

    # streams/window.py
    first_window: int = 64 * KIB  # bytes of credit implied at CONNECT
    open_window: int = 256 * KIB  # bytes it is raised to once the target answered
    largest_window: int = 4 * MIB  # bytes that tuning may reach on one channel
    link_pool: int = 16 * MIB  # bytes of credit beyond first_window, all channels of one link
    violations: int = 3  # channels that overspend their credit before the link is closed
    # link/turns.py
    frame: int = 16 * KIB  # bytes of DATA in one turn while others wait; a quarter of a quantum above 64 KiB
    lone_frame: int = 65535  # bytes of DATA in one frame while no other channel waits
    queue: int = 64 * KIB  # bytes a channel may have queued before its socket is paused
    smallest_quantum: int = 4 * KIB  # bytes handed to the kernel at once on a slow link
    largest_quantum: int = 256 * KIB  # the same on a fast one
    # link/legacy.py: a legacy wire has no credit
    legacy_queue_hard: int = 4 * MIB  # bytes owed to one socket before the link is paused
    legacy_link_queue: int = 16 * MIB  # bytes owed to all sockets of a link before it is paused
    legacy_stall: float = 30.0  # seconds a paused link waits for its slowest socket before resetting it
    early_data: int = 64 * KIB  # bytes held for an id whose CONNECT has not come yet (agent)
    early_wait: float = 1.0  # seconds they are held
    echo_wait: float = 60.0  # seconds of silence after which a missing echo CLOSE counts as seen
    legacy_linger: float = 5.0  # seconds a service has for its reply once it took all its client said (agent)
    legacy_answer: float = 150.0  # seconds a device whose kernel lives may leave a question open (server)
    legacy_glitches: int = 3  # oddities on a legacy link in glitch_window before it is closed
    # link/mux.py
    channels: int = 255  # channels at once; the number field allows 1..255
    number_wait: float = 5.0  # seconds a client waits for a channel number
    waiting: int = 256  # clients that may wait for a number
    glitches: int = 100  # tolerated oddities in glitch_window before the link is closed
    glitch_window: float = 60.0  # seconds
    late_frames: int = 64  # rt1: frames without data for a channel that we have ended; more are oddities
    idle_frames: int = 10_000  # legacy and EMO: frames in glitch_window that change nothing
    frames_a_turn: int = 1024  # frames handled before the reactor gets its turn (F2)
    time_a_turn: float = 0.002  # seconds, likewise; looked at every 64 frames
    # link/liveness.py
    keepalive: float = 25.0  # seconds of silence before a PING
    busy_keepalive: float = 5.0  # the same while our data is unanswered
    answer: float = 20.0  # seconds a PING may stay unanswered
    busy_answer: float = 15.0  # the same while our data is unanswered
    # link/handshake.py
    handshake: float = 10.0  # seconds from connect to an accepted HELLO, absolute
    probe: float = 1.0  # seconds a legacy listener waits for HELLO before it speaks legacy
    offers: int = 64  # targets one agent may offer


@dataclass(frozen=True, slots=True)
class DataLimits:
    """What a server spends on the data sockets of one link."""

    # carriers/tickets.py
    ticket: float = 30.0  # seconds within which a data socket must be there
    # carriers/warm_pool.py
    warm: int = 2  # sockets that wait for the next client while there are clients now and then
    warm_most: int = 64  # sockets that wait, or were asked for
    warm_idle: float = 60.0  # seconds without a client after which none waits
    retry: float = 30.0  # seconds that all clients go by the link when no socket came
    # carriers/data_sockets.py
    wait: float = 3.0  # seconds a client waits for a socket
    answer: float = 0.5  # seconds a CONNECT may stay unacknowledged, or four round trips if those are more


@dataclass(frozen=True, slots=True)
class EnrolmentLimits:
    """What a server spends on devices that ask for a certificate (trust/enrolment.py)."""

    token_life: float = 3600.0  # seconds a token is good
    tokens: int = 1000  # tokens that wait to be used
    wrong_tries: int = 10  # failures of one address in wrong_window before it is refused for as long
    wrong_window: float = 600.0  # seconds
    sources: int = 4096  # addresses that failed of late and are remembered; the oldest is forgotten first
    renewals: int = 16  # certificates of one device in 24 hours


@dataclass(frozen=True, slots=True)
class PeopleLimits:
    """What a server keeps of people and of what they may do."""

    # trust/people.py
    users: int = 10_000  # users in all
    groups: int = 1000  # groups in all
    groups_per_user: int = 32  # groups that one user is in
    tokens_per_user: int = 16  # tokens of one user that are good
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

    size: int = (
        64 * MIB
    )  # bytes of a file, after which another is begun; one may be twice that if none can be
    files: int = 16  # files, the one being written among them; the oldest goes when there are more
    tail: int = MIB  # bytes at a file's end that are searched for its last whole record


@dataclass(frozen=True, slots=True)
class AgentLimits:
    """What an agent spends on dialling targets and on coming back."""

    dial: float = 10.0  # seconds for one target, name resolution included
    dials: int = 64  # dials in flight per link
    dials_waiting: int = 256  # further CONNECTs that wait for a dial; the rest are refused
    lookups: int = 4  # name resolutions in flight: the thread pool has 10 threads
    retry_first: float = 0.5  # seconds; full jitter over U(0, min(retry_most, retry_first * 2**n))
    retry_most: float = 60.0  # seconds
    stable: float = 60.0  # seconds a link must live before the back-off starts over
    connect: float = 10.0  # seconds for a TCP connect to a server
    # carriers/agent_data.py
    data_most: int = 4096  # data sockets at once, waiting or in use
    data_dials: int = 32  # of them being connected; the rest of the tickets wait
    data_ticket: float = 25.0  # seconds after which a ticket is not worth a dial any more


@dataclass(frozen=True, slots=True)
class PenaltyLimits:
    """What failures cost their source, fleet/penalties.py: seconds for which it is not listened to."""

    authentication: float = 5.0  # a wrong proof, certificate or unknown serial
    silence: float = 10.0  # nothing, or not enough, said in time
    garbage: float = 10.0  # what is no handshake
    applied: float = 15.0  # a source is refused above this
    most: float = 600.0  # and never owes more
    sources: int = 65_536  # sources and serials that are remembered, each
    serial_failures: int = 10  # of one serial in serial_window; then those that failed are locked out
    serial_window: float = 600.0
    serial_lockout: float = 600.0


@dataclass(frozen=True, slots=True)
class ServerLimits:
    """What a server spends on peers it does not know yet, on clients, and in all."""

    pending: int = 512  # connections that have not finished their handshake
    pending_per_source: int = 64  # the same from one address
    handshakes: int = 200  # TLS handshakes in progress; those beyond wait, unread
    clients: int = 10_000  # client connections in all
    clients_per_device: int = 4096  # client connections to one device; a link alone carries 255 at once
    pool: int = 256 * MIB  # bytes of credit beyond first_window, all links
    descriptors: float = 0.85  # share of RLIMIT_NOFILE that connections may use
    descriptors_kept: int = 32  # descriptors kept for links and the admin door in any case
    herd_spread: float = 1.0  # seconds over which agents spread their return after a lost link
    retry_after: int = 0  # seconds a leaving server asks its agents to stay away
    drain: float = 30.0  # seconds running channels get when the server stops
    backlog: int = 4096  # connections the kernel queues per listening socket
    duplicate_swaps: int = 3  # links of one serial that may replace each other in duplicate_window
    duplicate_window: float = 60.0  # seconds
    proxy_header: int = 4 * KIB  # bytes of a PROXY header v2 with all its entries
    proxy_wait: float = 5.0  # seconds from accept to the end of a PROXY header, absolute


@dataclass(frozen=True, slots=True)
class CameoLimits:
    """What the CAMEO relays hold for their peers, and how long they wait for them."""

    # systems/cameo/zmtp.py
    message: int = 64 * MIB  # bytes of one message with all its frames; results and streams carry images
    frames: int = 64  # frames of one message
    # systems/cameo/cameo_outbox.py
    queue_messages: int = 10_000  # messages that wait for a peer that does not take them; more are dropped
    queue: int = 64 * MIB  # bytes of them; a single message may be larger
    # systems/cameo/cameo_outbox.py, systems/cameo/relays.py
    pool: int = 512 * MIB  # bytes that wait for all peers, and bytes of messages that are not whole yet
    # systems/cameo/cameo_topics.py
    topics: int = 10_000  # topics that one subscriber may have
    topic: int = 255  # bytes of a topic
    # systems/cameo/cameo_admission.py
    connections: int = 4096  # connections in all; the last quarter is for peers of this machine
    connections_per_source: int = 512  # connections of one address of another machine
    # systems/cameo/zmtp_peer.py
    handshake: float = 10.0  # seconds from connect to a peer's READY, absolute
    # daemons/cameo.py
    drain: float = 5.0  # seconds that peers get to take what waits for them when the relays stop
    backlog: int = 1024  # connections the kernel queues per listening socket


@dataclass(frozen=True, slots=True)
class CccpLimits:
    """What CCCP holds for devices that register, for callers of its API, and how long it waits for them."""

    # systems/cccp/registered_devices.py
    registration: float = 10.0  # seconds from connect to the end of the serial, TLS included, absolute
    pending: int = 8192  # connections that have not said their serial
    pending_per_source: int = 2048  # the same from one address; behind NAT many devices share one
    handshakes: int = 200  # TLS handshakes in progress; those beyond wait, unread
    parked: int = 50_000  # devices that are registered
    parked_time: float = 0.0  # seconds one may stay without a session; 0: for ever
    backlog: int = 4096  # connections the kernel queues per listening socket
    # systems/cccp/http_api.py
    connections: int = 512  # callers of the API at once
    header: float = 10.0  # seconds from connect, or from the last answer, to a whole request, absolute
    body: int = 4096  # bytes of a request's body
    wait: float = 300.0  # seconds that a caller may ask to wait for a device
    waiting: int = 256  # callers that wait at once
    # systems/cccp/wake.py
    wakes: int = 16  # wake drivers that run at once
    wake: float = 20.0  # seconds that one may take
    # daemons/cccp.py
    drain: float = 10.0  # seconds that running sessions get when the daemon stops


@dataclass(frozen=True, slots=True)
class RelayLimits:
    """What joined pairs of sockets move at once and hold for a side that does not take it."""

    # sockets/relay.py
    first: int = 64 * KIB  # bytes of a reading, to begin with and whenever not all was taken
    turn: int = 512 * KIB  # bytes of the largest reading; one for each direction and turn of the reactor
    calm: int = 256  # readings of bulk that stay at ``first`` after a small message came
    pool: int = 64 * MIB  # bytes held by all pairs beyond which readings are of 16 KiB
    flush: float = 60.0  # seconds a side may take for the last bytes once both sides have ended


@dataclass(frozen=True, slots=True)
class EmoLimits:
    """What the ends of an EMO command socket hold and wait for; the original's numbers where it has one."""

    # systems/emo/emo_sockets.py
    sockets: int = 50  # data sockets of one machine, those that wait for a client among them
    wait: float = 30.0  # seconds a client waits for its data socket
    # systems/emo/emo_server.py, systems/emo/emo_agent.py
    first: float = 3.0  # seconds for the first command of a connection, absolute
    heartbeat: float = 10.0  # seconds of silence before a PING
    silence: float = 30.0  # seconds of silence after which the other side is gone
    idle: float = 600.0  # seconds after which the agent closes an idle data socket
    unasked: int = 4  # data sockets that nobody asked for before the command socket is closed
    held: int = 256 * KIB  # bytes one stream may have on their way to a side that does not take them
    nul_wait: float = 0.05  # seconds after which NULs that may begin a terminator are passed on
    # systems/emo/emo_choice.py
    ask_again: float = 86_400.0  # seconds after which an original server is offered rt1 again
