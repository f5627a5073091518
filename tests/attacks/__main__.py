"""Attacks a service of this machine and says what its other clients notice.

    python -m tests.attacks                              # every case, against this checkout
    python -m tests.attacks long-files empty-parts --root ../before

starts the application of the checkout at ``--root`` on ports and a folder of its own, does as each case says with one
client's key, and meanwhile measures with another's: the latency of ``health/check`` ten times a second, the seconds
of a clip of 2.9 s sent with ``priority=high``, and the memory, files and deaths of the service's processes. Nothing
but 127.0.0.0/8 is reached.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from tests.attacks.case import Case
from tests.attacks.cases import ALL
from tests.attacks.report import HEADERS, row
from tests.attacks.stage import Outcome, Stage
from tests.support.processes import ROOT
from tests.support.tables import table


def main(arguments: Sequence[str] | None = None) -> None:
    chosen = _parser().parse_args(arguments)
    cases = _chosen(chosen.cases, chosen.skip)
    stage = Stage(chosen.root.resolve(), model=chosen.model, front=chosen.front, small=chosen.small)
    print(table(HEADERS, []), flush=True)
    with stage:
        for case in cases:
            outcome = stage.play(case)
            print(
                "| "
                + " | ".join(row(outcome.case, outcome.observed, outcome.notes, outcome.flaws, outcome.idle_s))
                + " |",
                flush=True,
            )
            _keep(outcome, chosen.json)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.attacks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("cases", nargs="*", help=f"of {', '.join(case.name for case in ALL)}; none: all")
    parser.add_argument("--root", type=Path, default=ROOT, help="the checkout whose service is attacked")
    parser.add_argument("--model", default="base", help="the Whisper model of the service")
    parser.add_argument("--front", choices=("python", "haproxy"), default="python", help="what takes HTTP requests")
    parser.add_argument("--skip", nargs="*", default=(), help="cases to leave out")
    parser.add_argument("--small", action="store_true", help="attacks of the size that the tests use")
    parser.add_argument("--json", type=Path, help="a file to which each outcome is added as a line of JSON")
    return parser


def _chosen(names: Iterable[str], skipped: Iterable[str]) -> list[Case]:
    by_name = {case.name: case for case in ALL}
    names = list(names) or list(by_name)
    if unknown := set(names) - set(by_name):
        sys.exit(f"There is no case {', '.join(sorted(unknown))}; there are {', '.join(by_name)}.")
    return [by_name[name] for name in names if name not in set(skipped)]


def _keep(outcome: Outcome, file: Path | None) -> None:
    if file is not None:
        with file.open("a") as writing:
            writing.write(json.dumps({"case": outcome.case.name, **vars(outcome.observed), **outcome.told}) + "\n")


if __name__ == "__main__":
    main()
