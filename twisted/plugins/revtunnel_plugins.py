"""The daemons that ``twistd --help`` lists. No ``__init__.py`` may ever stand in these two folders."""

from revtunnel.services.run import AGENT as agent
from revtunnel.services.run import CAMEO as cameo
from revtunnel.services.run import CCCP as cccp
from revtunnel.services.run import SERVER as server

__all__ = ["agent", "cameo", "cccp", "server"]
