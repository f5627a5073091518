"""The options that the benchmarks' command lines have in common."""

from __future__ import annotations

import argparse
import os
from dataclasses import dataclass

from tests.benchmarks.client import ServiceClient
from tests.benchmarks.rivals import Rival, load_rival


@dataclass(frozen=True, slots=True)
class Contenders:
    """The running service, and faster-whisper in this process."""

    service: ServiceClient
    rival: Rival


def parser(description: str | None) -> argparse.ArgumentParser:
    """Return a parser with the options that name the service, the rival and the number of rounds."""
    arguments = argparse.ArgumentParser(description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    arguments.add_argument("--url", default="http://127.0.0.1:8000", help="a service that is ready")
    arguments.add_argument("--model", default="base", help="the rival's model: use the service's own")
    arguments.add_argument("--compute-type", default="int8", help="the rival's CTranslate2 compute type")
    arguments.add_argument("--threads", type=int, default=os.cpu_count(), help="the rival's threads")
    arguments.add_argument("--rounds", type=int, default=3, help="each round measures every contender once")
    return arguments


def contenders(arguments: argparse.Namespace) -> Contenders:
    """Return both sides, ready to run: wait for the service and warm the rival up."""
    service = ServiceClient(arguments.url)
    service.wait_until_ready(60.0)
    return Contenders(service, load_rival(arguments.model, arguments.compute_type, arguments.threads))
