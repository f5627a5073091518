"""Makes requests on behalf of clients: to public addresses only, bounded in time and size.

A name is resolved once, all its addresses are checked, and the connection goes to a checked address. A name whose
addresses change after the check (DNS rebinding) therefore gains nothing. ``Host``, SNI and the certificate check still
use the name. Each redirect is a new request and is checked again. The process's environment has no influence, and
nothing (cookies, connections) is kept from one request to the next.
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
