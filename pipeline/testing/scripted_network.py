"""Name lookups and HTTP transports that a test controls."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import httpx


class ScriptedResolver:
    """A resolver with prescribed answers.

    Args:
        answers: successive answers for each name; the last one stays.

    Attributes:
        lookups: names that were looked up, in order.
    """

    def __init__(self, answers: Mapping[str, Sequence[Sequence[str]]]) -> None:
        self._answers = {name: list(script) for name, script in answers.items()}
        self.lookups: list[str] = []

    async def __call__(self, host: str, port: int) -> Sequence[str]:
        """Return the next addresses of a name; raise ``OSError`` for a name without answers."""
        self.lookups.append(host)
        if host not in self._answers:
            raise OSError(f"no such name: {host}")
        answers = self._answers[host]
        return answers.pop(0) if len(answers) > 1 else answers[0]


class ScriptedTransport(httpx.AsyncBaseTransport):
    """A transport whose responses come from a function. Requests are kept in ``requests``."""

    def __init__(self, answer: Callable[[httpx.Request], httpx.Response]) -> None:
        self._answer = answer
        self.requests: list[httpx.Request] = []

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Record the request and return its response."""
        self.requests.append(request)
        return self._answer(request)


class LoopbackTransport(httpx.AsyncBaseTransport):
    """A transport that connects to 127.0.0.1 in place of every other address, so that any host name can be used."""

    def __init__(self) -> None:
        self._sockets = httpx.AsyncHTTPTransport(
            trust_env=False, verify=False, limits=httpx.Limits(max_keepalive_connections=0)
        )

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send the request to the same TCP port of this machine."""
        return await self._sockets.handle_async_request(
            httpx.Request(
                request.method,
                request.url.copy_with(host="127.0.0.1"),
                headers=request.headers,
                stream=request.stream,
                extensions=request.extensions,
            )
        )

    async def aclose(self) -> None:
        """Close the connections."""
        await self._sockets.aclose()
