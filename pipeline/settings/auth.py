"""Settings of the section ``auth``."""

from __future__ import annotations

from typing import Annotated, Any, Self

from limits import parse_many as parse_rates
from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, model_validator

from pipeline.domain.tasks.client import Client, Scope
from pipeline.settings.section import Section

_RATE_EXAMPLE = "such as `10/second` or `10/second; 1000/hour`"


def _checked_rate(rate: str | None) -> str | None:
    if rate is not None:
        try:
            parse_rates(rate)
        except ValueError as error:
            raise ValueError(f"{rate!r} is not a rate, {_RATE_EXAMPLE}") from error
    return rate


Rate = Annotated[str | None, AfterValidator(_checked_rate)]


def _split_list(value: Any) -> Any:
    return (value,) if isinstance(value, str) else value


Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class KeySettings(Section):
    """One API key: its holder, scopes and limits."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")
    """Name of the holder. Tasks are stored with it: a new key of the same name sees the tasks of the old one."""
    sha256: Annotated[tuple[Sha256, ...], BeforeValidator(_split_list), Field(min_length=1)]
    """SHA-256 of the key, as `python -m deployments.keys new` prints it. The key itself is not stored. While the holder
    changes from one key to the next, a list of both: they have the same scopes, and share their limits."""
    scopes: frozenset[Scope] = Field(default=frozenset({Scope.READ, Scope.WRITE}), min_length=1)
    """`read`, `write`, `admin` (both, for the tasks of all clients)."""
    rate: Rate = None
    """Rate limit of its requests, in the syntax of the library `limits`: `10/second`, `10/second; 1000/hour`.
    Empty: `auth.rate`."""
    max_queued_tasks: int | None = Field(default=None, ge=1)
    """Most tasks of it that may wait at the same time. Empty: any number."""
    max_audio_minutes_per_day: float | None = Field(default=None, gt=0)
    """Most minutes of its audio that may be decoded in 24 hours. Empty: any number."""

    @property
    def client(self) -> Client:
        """The holder of the key."""
        minutes = self.max_audio_minutes_per_day
        return Client(self.name, self.scopes, self.max_queued_tasks, None if minutes is None else minutes * 60)


class AuthSettings(Section):
    """The API keys. Without keys, everybody who reaches the TCP port may use the service."""

    keys: tuple[KeySettings, ...] = ()
    """The keys. Their hashes are no secrets: a key has 256 random bits."""
    rate: Rate = None
    """Rate limit of keys without one of their own. Empty: any rate."""
    rate_storage: SecretStr = SecretStr("async+memory://")
    """Storage of the request counts, as a URL of the library `limits`. In memory, each Ingress replica counts alone, so
    n replicas accept up to n times as many requests; `async+redis://host:6379` counts once and needs the package
    `limits[async-redis]`. A URL with a password belongs in the environment."""

    @property
    def audio_limits(self) -> dict[str, float]:
        """Seconds of audio in 24 hours, by the name of each client with such a limit."""
        clients = [key.client for key in self.keys]
        return {client.name: client.max_audio_s for client in clients if client.max_audio_s is not None}

    @model_validator(mode="after")
    def _names_are_unique(self) -> Self:
        names = [key.name for key in self.keys]
        if len(set(names)) < len(names):
            raise ValueError("two keys have the same name; give the holder of two keys a list of two under `sha256`")
        hashes = [sha256 for key in self.keys for sha256 in key.sha256]
        if len(set(hashes)) < len(hashes):
            raise ValueError("the same sha256 is there twice; give every key a hash of its own")
        return self
