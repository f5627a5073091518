"""Settings of the section ``dispatch``."""

from __future__ import annotations

from pydantic import Field

from pipeline.settings.section import Section


class DispatchSettings(Section):
    """The queue and the running tasks."""

    lease_duration_s: float = Field(default=30.0, gt=1)
    """Duration of a task's lease unless its Dispatcher renews it."""
    heartbeat_s: float = Field(default=5.0, gt=0)
    """Interval at which leases are renewed."""
    poll_s: float = Field(default=3.0, gt=0)
    """Interval at which the database is queried for work that was not announced."""
    max_active_tasks: int = Field(default=64, ge=1)
    """Tasks of one priority that run at the same time in one Dispatcher, beside those that are being fetched and up to
    as many that wait to be split. If few clients have all of them, as many again may run of clients that have less than
    their share."""
    max_concurrent_crawls: int = Field(default=64, ge=1)
    """Recordings that are fetched at the same time, of one host at most `crawl.max_per_host`. A client leaves half of
    the slots to others. At most the capacity of the Crawlers in `serve_config.yaml`: `min_replicas` times
    `max_ongoing_requests`."""
    max_concurrent_splits: int = Field(default=16, ge=1)
    """Recordings that are split at the same time: they take turns at the cores, see `split.concurrency`, and hold some
    25 MB each. A client leaves half of the slots to others, and less urgent tasks leave some to more urgent ones. At
    most the capacity of the Splitters in `serve_config.yaml`: `min_replicas` times `max_ongoing_requests`."""
    max_attempts: int = Field(default=3, ge=1)
    """Failed attempts of a task, or processes that die while they work on it, in a row without progress in between."""
    max_losses: int = Field(default=10, ge=1)
    """Times in a row, without progress in between, that a task's Dispatcher may be lost before the task is a dead
    letter. A lost Dispatcher loses all of its tasks, so a loss says little about any one of them."""
    retry_base_s: float = Field(default=2.0, gt=0)
    """Upper bound of the first pause before another attempt; it doubles with each attempt."""
    unit_deadline_s: float = Field(default=60.0, gt=0)
    """Silence, on top of three times its audio, after which a unit is lost. Costly options extend it."""
    ageing_s: float = Field(default=600.0, gt=0)
    """Waiting time that raises a task by one priority, each time that it passes; among a client's waiting chunks it
    raises one unit."""
    housekeeping_s: float = Field(default=60.0, gt=0)
    """Interval at which expired tasks, and media that belongs to no task, are deleted."""
    max_queued_tasks: int = Field(default=10_000, ge=1)
    """Waiting tasks at which new ones are refused with 503."""
    max_queued_audio_s: float | None = Field(default=None, gt=0)
    """Seconds of audio not yet decoded, of waiting and running tasks, at which new tasks are refused with 503. Empty:
    no limit. The audio of recordings that are not split yet is estimated from their size."""
    retention_s: float | None = Field(default=None, gt=0)
    """Age at which finished tasks are deleted, with their results and media. Empty: never."""
