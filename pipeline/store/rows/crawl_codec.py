"""Crawl records as the JSON in which they are stored."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime

from pydantic import TypeAdapter

from pipeline.domain.links.platforms import CrawlRecord
from pipeline.domain.tasks.record_defect import RecordDefect
from pipeline.store.rows.compact_json import to_json
from pipeline.store.rows.row_reader import RowReader, StoredRow, json_object

_CRAWL = TypeAdapter(CrawlRecord)


def crawl_to_json(record: CrawlRecord) -> str:
    """Return a crawl record as JSON, without the fields that are ``None``."""
    values = {name: value for name, value in asdict(record).items() if value is not None}
    return to_json({name: v.isoformat() if isinstance(v, datetime) else v for name, v in values.items()})


def crawl_of_json(value: str) -> CrawlRecord:
    """Return the crawl record of ``crawl_to_json``. Raises one of ``row_reader.UNREADABLE``."""
    values = json_object(value)
    times = {name: datetime.fromisoformat(values[name]) for name in ("published_at", "crawled_at") if name in values}
    return _CRAWL.validate_python(values | times)


def read_crawl(row: StoredRow) -> tuple[CrawlRecord | None, RecordDefect | None]:
    """Return the crawl record in a row of ``crawl_records``, and the row's defect, if it has one."""
    reader = RowReader("crawl_records", row, "task_id")
    return reader.read("record", crawl_of_json, None), reader.defect
