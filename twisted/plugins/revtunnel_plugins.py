"""The daemons that ``twistd --help`` lists. No ``__init__.py`` may ever stand in these two folders."""

from revtunnel.daemons.run import AGENT as agent
from revtunnel.daemons.run import CAMEO as cameo
from revtunnel.daemons.run import CCCP as cccp
from revtunnel.daemons.run import SERVER as server

__all__ = ["agent", "cameo", "cccp", "server"]
