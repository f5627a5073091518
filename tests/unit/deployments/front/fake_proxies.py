"""Proxies of Ray Serve that are none."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from deployments.front.bounds import ConnectionBounds


@dataclass
class FakeProxies:
    """Proxies with given results of bounding: done, still starting, or an error."""

    answers: dict[str, bool | Exception]
    calls: list[str] = field(default_factory=list)
    looked: threading.Event = field(default_factory=threading.Event)

    def running(self) -> Mapping[str, Any]:
        self.looked.set()
        return {name: name for name in self.answers}

    def bound(self, proxy: Any, bounds: ConnectionBounds) -> bool:
        self.calls.append(proxy)
        answer = self.answers[proxy]
        if isinstance(answer, Exception):
            raise answer
        return answer
