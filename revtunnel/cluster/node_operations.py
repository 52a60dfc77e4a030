"""What operators see of a cluster, and what nodes ask each other, which no person may."""

from revtunnel.process.admin.device_operations import SERIAL
from revtunnel.process.admin.operation_form import ROW, ROWS, Argument, Column, Kind, Operation
from revtunnel.process.admin.refusals import Invalid, NotFound

__all__ = [
    "ABOUT",
    "ANSWERED",
    "CAME",
    "NODES",
    "NODE_DEVICE",
    "NODE_DEVICES",
    "NODE_LOAD",
    "NODE_OVER",
    "NODE_PROXY",
    "NODE_PROXY_OFF",
    "OF_DIRECTORY",
    "WHERE",
]

ABOUT = Operation("NodeAbout", "node_about", "what this node is and has", answer=ROW)
WHERE = Operation(
    "NodeWhere", "node_where", "the link of a device, if it is at this node", "", (SERIAL,), ROW
)
CAME = Operation(
    "NodeCame", "node_came", "links that are up at the node that asks, in JSON: serial and age in seconds",
    "Answers with those whose link here is newer, and stays.", (Argument("links"),), ROW, named=True,
    errors=(Invalid,),
)  # fmt: skip
NODE_DEVICE = Operation(
    "NodeDevice", "answers.device", "a device that is at this node, with its offers",
    "With ``asked``, in JSON, also what its site says to a session of the node that asks, which is kept for "
    "some seconds.", (SERIAL, Argument("asked", optional=True)), ROW, errors=(NotFound, Invalid),
)  # fmt: skip
NODE_DEVICES = Operation(
    "NodeDevices", "answers.devices", "devices that are at this node, as NodeDevice has them", answer=ROWS,
    key=("serial",), columns=(Column("serial", Kind.TEXT, "of the device"),),
)  # fmt: skip
NODE_LOAD = Operation("NodeLoad", "answers.load", "what this node has to do", answer=ROW)
NODE_OVER = Operation(
    "NodeOver", "answers.over", "a session of the node that asks has ended", "", (Argument("session"),)
)
NODE_PROXY = Operation(
    "NodeProxy", "answers.proxy", "the CCCP proxy of a serial here", "", (SERIAL,), ROW, errors=(NotFound,)
)
NODE_PROXY_OFF = Operation(
    "NodeProxyOff", "answers.proxy_off", "end the CCCP proxy of a serial", "", (SERIAL,), errors=(NotFound,)
)
OF_DIRECTORY = {each.name: each for each in (ABOUT, WHERE, CAME)}
_ANSWERED = NODE_DEVICE, NODE_DEVICES, NODE_LOAD, NODE_OVER, NODE_PROXY, NODE_PROXY_OFF
ANSWERED = {each.name: each for each in _ANSWERED}

NODES = Operation(
    "Nodes", "cluster.nodes", "nodes of the cluster: state, devices, clients, and the link to each",
    "As this node sees them; load and engine are what each says when it is asked.",
    answer=ROWS, key=("node",), errors=(NotFound,), command="nodes",
    columns=(
        Column("node", Kind.TEXT, "its name", "NODE"),
        Column("state", Kind.TEXT, "``up``, ``draining``, or ``away``: not heard of", "STATE"),
        Column("here", Kind.YES_NO, "whether it is the one that was asked"),
        Column("epoch", Kind.TEXT, "which of its lives", "EPOCH"),
        Column("devices", Kind.NUMBER, "that are at it", "DEVICES"),
        Column("clients", Kind.NUMBER, "that are connected to it", "CLIENTS"),
        Column("load", Kind.NUMBER, "per cent of a core that its process took of late; null: it did not say",
               "LOAD"),
        Column("engine_trip", Kind.TRIP, "of its last renewal at the engine; null: none, or it did not say",
               "ENGINE"),
        Column("address", Kind.TEXT, "where others dial it", "ADDRESS"),
        Column("linked", Kind.YES_NO, "whether clients here reach its devices", "LINKED"),
        Column("round_trip", Kind.TRIP, "of that link; null: not known", "ROUND-TRIP"),
        Column("secret", Kind.TEXT, "``secret_file``: ``same`` as that of the one that was asked, ``other``, "
               "``none``; empty: it does not say", "SECRET"),
        Column("version", Kind.TEXT, "of revtunnel", "VERSION"),
    ),
)  # fmt: skip
