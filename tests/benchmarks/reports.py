"""Results as Markdown, ready to be pasted: medians, and the command that made them."""

from __future__ import annotations

import shlex
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.support.tables import table


def report(title: str, headers: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a heading, the table, and this program's command line."""
    print(f"\n### {title}\n\n{table(headers, rows)}\n\n`{command_line()}`", flush=True)


def command_line() -> str:
    """Return the command line of this program, as one would repeat it from the root of the repository."""
    return shlex.join(["python", "-m", f"tests.benchmarks.{Path(sys.argv[0]).stem}", *sys.argv[1:]])


def median_s(values: Sequence[float], digits: int = 2) -> str:
    """Return the median, with its bounds if there are several values: ``1.31 s (1.28–1.40)``."""
    middle = f"{statistics.median(values):.{digits}f} s"
    return middle if len(values) == 1 else f"{middle} ({min(values):.{digits}f}–{max(values):.{digits}f})"


def times(ours: Sequence[float], theirs: Sequence[float]) -> str:
    """Return how many times as long they took, by medians."""
    return f"{statistics.median(theirs) / statistics.median(ours):.2f}×"
