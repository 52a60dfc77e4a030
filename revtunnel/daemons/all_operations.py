"""The whole table: every operation of every daemon, and which daemons have it.

Source: process/admin/operation_form.py has the form.
"""

from revtunnel.daemons.server_operations import SERVER_OPERATIONS
from revtunnel.process.admin.operation_form import table_of
from revtunnel.systems.cameo.cameo_operations import CAMEO_OPERATIONS
from revtunnel.systems.cccp.cccp_operations import CCCP_OPERATIONS

__all__ = ["DAEMONS", "OPERATIONS"]

DAEMONS = {
    "revtunnel-server": SERVER_OPERATIONS,
    "revtunnel-cccp": CCCP_OPERATIONS,
    "revtunnel-cameo": CAMEO_OPERATIONS,
}
OPERATIONS = table_of(*(row for table in DAEMONS.values() for row in table.values()))
