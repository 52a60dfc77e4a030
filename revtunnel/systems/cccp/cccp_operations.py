"""What revtunnel-cccp has: what every daemon with devices has; proxies are its HTTP API's."""

from revtunnel.process.admin.device_operations import DEVICE_OPERATIONS
from revtunnel.process.admin.operation_form import table_of
from revtunnel.process.admin.process_operations import PROCESS_OPERATIONS

__all__ = ["CCCP_OPERATIONS"]

CCCP_OPERATIONS = table_of(*PROCESS_OPERATIONS, *DEVICE_OPERATIONS)
