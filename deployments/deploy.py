"""``python -m deployments.deploy configs/serve.gpu.yaml``: checks a Serve config, deploys it, and waits until it runs.

``serve deploy`` returns before anything is deployed, with success even if it fails a moment later, and drops keys it
does not know. This command exits with 0 only when the application runs, and says why it doesn't otherwise.
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
    """See the module; 1 if the config is refused, the deployment fails, or it takes too long."""
    parser = argparse.ArgumentParser(prog="python -m deployments.deploy", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("config", type=Path, help="a Serve config, such as configs/serve.gpu.yaml")
    parser.add_argument("-a", "--address", default="http://localhost:8265", help="the cluster's dashboard")
    parser.add_argument("--timeout", type=float, default=900.0, help="seconds to wait until it runs")
    asked = parser.parse_args(arguments)
    try:
        config = checked(asked.config)
        deploy(ServeSubmissionClient(asked.address), config, asked.timeout, time.sleep)
    except (ConfigurationError, ConnectionError, RuntimeError, TimeoutError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


def checked(file: Path) -> dict[str, Any]:
    """The config, if Serve would take all of it. Raises ``ConfigurationError``."""
    config = read_config(file)
    if unknown := unknown_keys(config):
        raise ConfigurationError(f"{file.name} has keys that Serve does not know: {', '.join(unknown)}.")
    content: dict[str, Any] = ServeDeploySchema.model_validate(config).model_dump(exclude_unset=True)
    return content


def deploy(client: Any, config: dict[str, Any], timeout_s: float, sleep: Callable[[float], None]) -> None:
    """Hands the config over and waits until all of its applications run.

    Raises:
        RuntimeError: one can't be deployed; says what Serve says.
        TimeoutError: they don't run yet.
    """
    client.deploy_applications(config)
    names = [application["name"] for application in config["applications"]]
    shown = ""
    for _ in range(max(1, round(timeout_s / POLL_S))):
        sleep(POLL_S)
        applications = client.get_serve_details()["applications"]
        states = {name: applications.get(name, {}).get("status", "NOT_STARTED") for name in names}
        for name in names:
            if states[name] in FAILED:
                raise RuntimeError(f"{name}: {states[name]}. {_reason(applications[name]['message'])}")
        line = ", ".join(f"{name}: {status}" for name, status in states.items())
        if line != shown:
            sys.stdout.write(f"{line}\n")
            shown = line
        if set(states.values()) == {"RUNNING"}:
            return
    raise TimeoutError(f"After {timeout_s:.0f} s still {shown}: `serve status` says more.")


def _reason(message: str) -> str:
    """What a traceback ends with, since that is a sentence of ours; all of any other message."""
    if "Traceback" not in message:
        return message
    last = message.strip().splitlines()[-1]
    return last.removeprefix(f"{ConfigurationError.__module__}.{ConfigurationError.__qualname__}: ")


if __name__ == "__main__":
    sys.exit(main())
