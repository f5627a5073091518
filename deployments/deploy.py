"""Check a Serve config, deploy it and wait until it runs: ``python -m deployments.deploy configs/serve.gpu.yaml``.

``serve deploy`` returns before anything is deployed, reports success even if the deployment fails a moment later, and
drops keys that it does not know. This command exits with 0 only once the application runs; otherwise it prints why not.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ray.dashboard.modules.serve.sdk import ServeSubmissionClient
from ray.serve.schema import ServeDeploySchema

from deployments.config_check import read_config, unknown_keys
from pipeline.errors import ConfigurationError

FAILED = {"DEPLOY_FAILED", "UNHEALTHY"}
POLL_S = 1.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command. Return 0 once the application runs, or 1 if the config is refused or deploying fails."""
    parser = argparse.ArgumentParser(prog="python -m deployments.deploy", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("config", type=Path, help="a Serve config, such as configs/serve.gpu.yaml")
    parser.add_argument("-a", "--address", default="http://localhost:8265", help="address of the cluster's dashboard")
    parser.add_argument("--timeout", type=float, default=900.0, help="seconds to wait until the application runs")
    options = parser.parse_args(arguments)
    try:
        config = read_checked_config(options.config)
        deploy(ServeSubmissionClient(options.address), config, options.timeout, time.sleep)
    except (ConfigurationError, ConnectionError, RuntimeError, TimeoutError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


def read_checked_config(file: Path) -> dict[str, Any]:
    """Return the config. Raise ``ConfigurationError`` if it has keys that Serve does not know."""
    config = read_config(file)
    if unknown := unknown_keys(config):
        raise ConfigurationError(f"{file.name} has keys that Serve does not know: {', '.join(unknown)}.")
    content: dict[str, Any] = ServeDeploySchema.model_validate(config).model_dump(exclude_unset=True)
    return content


def deploy(client: Any, config: dict[str, Any], timeout_s: float, sleep: Callable[[float], None]) -> None:
    """Send the config to the cluster and wait until all of its applications run.

    Raises:
        RuntimeError: an application can't be deployed; the message has Serve's reason.
        TimeoutError: an application does not run after ``timeout_s``.
    """
    client.deploy_applications(config)
    names = [application["name"] for application in config["applications"]]
    reported = ""
    for _ in range(max(1, round(timeout_s / POLL_S))):
        sleep(POLL_S)
        applications = client.get_serve_details()["applications"]
        states = {name: applications.get(name, {}).get("status", "NOT_STARTED") for name in names}
        for name in names:
            if states[name] in FAILED:
                raise RuntimeError(f"{name}: {states[name]}. {_reason(applications[name]['message'])}")
        line = ", ".join(f"{name}: {status}" for name, status in states.items())
        if line != reported:
            sys.stdout.write(f"{line}\n")
            reported = line
        if set(states.values()) == {"RUNNING"}:
            return
    raise TimeoutError(f"After {timeout_s:.0f} s still {reported}: run `serve status` for details.")


def _reason(message: str) -> str:
    """Return the last line of a traceback, which is the sentence of our error; any other message whole."""
    if "Traceback" not in message:
        return message
    last = message.strip().splitlines()[-1]
    return last.removeprefix(f"{ConfigurationError.__module__}.{ConfigurationError.__qualname__}: ")


if __name__ == "__main__":
    sys.exit(main())
