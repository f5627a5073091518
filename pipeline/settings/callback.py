"""Settings of the section ``callback``."""

from __future__ import annotations

from pydantic import Field, SecretStr

from pipeline.settings.section import Section


class CallbackSettings(Section):
    """Callbacks to clients."""

    timeout_s: float = Field(default=10.0, gt=0)
    """Longest time of a delivery; if the receiver takes longer, the callback is delivered again later."""
    delays_s: tuple[float, ...] = (30.0, 120.0, 600.0, 3600.0)
    """Pauses between deliveries; there is none after the last one has failed."""
    concurrency: int = Field(default=16, ge=1)
    """Deliveries in progress at the same time, at most four to one host. A client leaves half of them to others."""
    retention_s: float | None = Field(default=2_592_000.0, gt=0)
    """Age at which callbacks that were delivered or have failed are deleted. Empty: with their task."""
    secret: SecretStr | None = None
    """Standard Webhooks secret (`whsec_…`). Like every secret it belongs in the environment, here as
    `MURMURATION_CALLBACK__SECRET`, or in a settings file that nobody else may read."""
