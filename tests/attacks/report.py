"""An outcome as one row of a Markdown table, and whether it is as it should be."""

from __future__ import annotations

import math
from collections.abc import Sequence

from tests.attacks.case import Case
from tests.attacks.observe import Observed
from tests.support.tables import percentile

HEALTH_P99_S = 1.0
CLIP_DELAY_S = 2.0
"""How much longer than on an idle service the victim's clip may take."""

HEADERS = (
    "attack",
    "health p50 / p99 / max (lost)",
    "memory: all (most)",
    "disk",
    "other's clip: median / max (lost)",
    "died",
    "seen by the attacker",
    "verdict",
)


def row(case: Case, observed: Observed, notes: Sequence[str], flaws: Sequence[str], idle_s: float | None) -> list[str]:
    """Return the cells of one attack."""
    wrong = findings(case, observed, flaws, idle_s)
    return [
        f"{case.title} (`{case.name}`)",
        _latencies(observed.health_s),
        _memory(observed),
        f"{observed.disk_mib:.0f} MiB",
        _clips(observed.clips_s),
        ", ".join(f"{count} × {name}" for name, count in observed.lost.items()) or "–",
        "; ".join([*notes, *(f"{count} × {what}" for what, count in observed.failures.most_common(3))]) or "–",
        "**fails**: " + "; ".join(wrong) if wrong else "holds",
    ]


def findings(case: Case, observed: Observed, flaws: Sequence[str], idle_s: float | None) -> list[str]:
    """Return the faults that an attack showed."""
    found = lasting_findings(case, observed, flaws)
    if any(map(math.isinf, observed.health_s)) or percentile(observed.health_s, 99) > HEALTH_P99_S:
        found.append("health")
    if observed.clips_s and idle_s is not None and max(observed.clips_s) > idle_s + CLIP_DELAY_S:
        found.append("clip")
    return found


def lasting_findings(case: Case, observed: Observed, flaws: Sequence[str]) -> list[str]:
    """Return those faults that do not depend on the load of the machine."""
    found = list(flaws)
    if observed.total_growth_mib > case.max_growth_mib:
        found.append("memory")
    if case.max_process_growth_mib is not None:
        grown = {name: mib for name, mib in observed.growth_mib.items() if mib > case.max_process_growth_mib}
        found += [f"{name} grew by {mib:.0f} MiB" for name, mib in grown.items()]
    if observed.disk_mib > case.max_disk_mib:
        found.append("disk")
    if observed.lost:
        found.append("processes died")
    if any(map(math.isinf, observed.clips_s)):
        found.append("clips lost")
    return found


def _latencies(seconds: Sequence[float]) -> str:
    lost = sum(map(math.isinf, seconds))
    p50, p99 = (percentile(seconds, percent) for percent in (50, 99))
    longest = max((second for second in seconds if math.isfinite(second)), default=math.inf)
    return f"{_time(p50)} / {_time(p99)} / {_time(longest)} ({lost} of {len(seconds)})"


def _clips(seconds: Sequence[float]) -> str:
    if not seconds:
        return "–"
    lost = sum(map(math.isinf, seconds))
    return f"{_time(percentile(seconds, 50))} / {_time(max(seconds))} ({lost} of {len(seconds)})"


def _time(seconds: float) -> str:
    if math.isinf(seconds):
        return "none"
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.1f} s"


def _memory(observed: Observed) -> str:
    most = sorted(observed.growth_mib.items(), key=lambda item: -item[1])[:2]
    told = ", ".join(f"{name} {grown:.0f}" for name, grown in most)
    return f"{observed.total_growth_mib:.0f} MiB ({told})"
