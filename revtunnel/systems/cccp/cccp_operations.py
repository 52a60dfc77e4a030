"""What revtunnel-cccp has: its ports are listed; proxies are its HTTP API's."""

from revtunnel.process.door.device_operations import PORTS, STATUS_OF_DEVICES
from revtunnel.process.door.operation import table_of
from revtunnel.process.door.process_operations import PROCESS_OPERATIONS

__all__ = ["CCCP_OPERATIONS"]

CCCP_OPERATIONS = table_of(*PROCESS_OPERATIONS, STATUS_OF_DEVICES, PORTS)
