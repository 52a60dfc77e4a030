"""What the HTTP API has beside the operator's table: charts (series.py), events (event_streams.py)."""

from revtunnel.process.admin.device_operations import SERIAL
from revtunnel.process.admin.operation_form import ROW, CallerRole, Column, Kind, Operation
from revtunnel.process.admin.refusals import NotFound

__all__ = ["WEB_OPERATIONS"]

WEB_OPERATIONS = (
    Operation(
        "MyEvents", "watch", "what happens that concerns him, as it happens",
        "Server-sent events, as at /api/v1/events.", role=CallerRole.NOBODY, route="GET /my/events",
    ),
    Operation(
        "Series", "charts.series", "the last hour in samples of ten seconds, of the server or of one device",
        "A device is sampled while somebody looks at it, from the first look on.",
        (SERIAL._replace(optional=True),), ROW, errors=(NotFound,),
        columns=(
            Column("step", Kind.SECONDS, "between two samples"),
            Column("until", Kind.TIME, "of the last one"),
            Column("series", Kind.OBJECT, "by name: samples, the oldest first, null where there is none; "
                   "bytes are sums since the start"),
        ),
    ),
)  # fmt: skip
