"""The form of stored JSON."""

from __future__ import annotations

import json


def to_json(value: object) -> str:
    """Return a value as JSON without blanks, and with characters of every script unescaped."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
