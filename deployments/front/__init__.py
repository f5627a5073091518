"""Bounds on connections and request heads, in front of everything that trusts a request.

``protocol`` is the bounded HTTP server protocol, ``proxies`` puts it into Serve's HTTP proxies, ``exposure`` says who
can reach them. What listens where: docs/security.md.
"""
