"""What ``clientFromString`` knows: ``revtunnel:serial=plc-7:target=http``."""

from revtunnel.connect.endpoint_parser import EndpointParser

parser = EndpointParser()

__all__ = ["parser"]
