"""Bounds on connections and request heads, which apply before the application sees a request.

``bounds`` has the rules, ``protocol`` the HTTP server protocol that applies them, and ``proxies`` installs it in
Serve's HTTP servers. docs/security.md lists the addresses and TCP ports that the service listens on.
"""
