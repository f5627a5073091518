"""Requests made on behalf of clients: to public addresses only, bounded in time and size.

A name is resolved once, every address it has is judged, and the connection goes to an address that was judged, so that
a name cannot change its mind in between (DNS rebinding). ``Host``, SNI and the certificate check still use the name.
Each redirect is a new request and judged anew. Nothing is taken over from the process's environment, and nothing
(cookies, connections) is kept from one request to the next.
"""

from pipeline.net.address_guard import Guard, GuardedTransport, Resolver, SystemResolver
from pipeline.net.dialer import Dialer
from pipeline.net.guarded_client import GuardedClient, StreamedResponse, WholeResponse
from pipeline.net.guarding_proxy import GuardingProxy, guarding_proxy

__all__ = [
    "Dialer",
    "Guard",
    "GuardedClient",
    "GuardedTransport",
    "GuardingProxy",
    "Resolver",
    "StreamedResponse",
    "SystemResolver",
    "WholeResponse",
    "guarding_proxy",
]
