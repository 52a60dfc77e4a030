"""What Protocols of others find at a transport of ours."""

from twisted.internet.interfaces import IConsumer, IPushProducer, ITCPTransport
from zope.interface.verify import verifyObject

from revtunnel.sockets.ends import PlainEnd, tune
from revtunnel.sockets.twisted_transport import TwistedTransport
from tests.support.ends import tcp_pair
from tests.support.epoll import Loop
from tests.support.memory import Recorder


def test_it_is_a_tcp_transport(loop: Loop) -> None:
    """Addresses and both options, and no room for more."""
    near, far = tcp_pair()
    tune(near)
    with far:
        transport = TwistedTransport(loop.reactor, PlainEnd(near), protocol := Recorder())
        transport.start()
        for interface in (ITCPTransport, IConsumer, IPushProducer):
            assert verifyObject(interface, transport)
        assert not hasattr(transport, "__dict__")
        peer, host = transport.getPeer(), transport.getHost()
        assert (peer.host, peer.port) == far.getsockname()
        assert (host.host, host.port) == far.getpeername()
        assert transport.getTcpNoDelay() and transport.getTcpKeepAlive()
        transport.setTcpNoDelay(False)
        transport.setTcpKeepAlive(False)
        assert not (transport.getTcpNoDelay() or transport.getTcpKeepAlive())
        transport.abortConnection()
        loop.until(lambda: protocol.lost)
