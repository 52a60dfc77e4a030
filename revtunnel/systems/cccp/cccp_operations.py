"""What revtunnel-cccp has: what every daemon with devices has; proxies are its HTTP API's."""

from revtunnel.process.door.device_operations import DEVICE_OPERATIONS
from revtunnel.process.door.operation import table_of
from revtunnel.process.door.process_operations import PROCESS_OPERATIONS

__all__ = ["CCCP_OPERATIONS"]

CCCP_OPERATIONS = table_of(*PROCESS_OPERATIONS, *DEVICE_OPERATIONS)
