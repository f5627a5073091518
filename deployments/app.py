"""The graph: ``build(args)`` binds the deployments to each other and is what ``serve run`` and ``serve deploy`` import.

::

    Ingress ──► Dispatcher ──► Crawler
          │               ├──► Splitter
          │               ├──► WhisperReplica
          └───────────────┴──► Summarizer
"""

# No postponed annotations here: Serve reads the type of ``build``'s parameter to validate the config's ``args``.
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import ray
from pydantic import BaseModel, ConfigDict, Field
from ray.serve import Application

from deployments import preflight
from deployments.crawler import Crawler
from deployments.dispatcher import Dispatcher
from deployments.ingress import Ingress
from deployments.splitter import Splitter
from deployments.summarizer import Summarizer
from deployments.whisper import WhisperReplica
from pipeline.errors import ConfigurationError
from pipeline.settings import load_settings

CPU_SHARE = 1.0
"""Logical CPUs of a WhisperReplica without a GPU; with one, decoding needs the host for little."""
GPU_HOST_SHARE = 0.5


class BuildArgs(BaseModel):
    """The application's ``args`` in the Serve config. No secrets: Serve's REST API shows them."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    config: str = "cpu"
    """A file of the ``configs`` package by its name without ``.yaml``, or an absolute path to one of your own."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where models run. ``auto`` looks at the nodes that are up; ``cuda`` asks for GPUs that may only be coming."""
    gpu_fraction: float = Field(default=1.0, gt=0, le=1)
    """Share of a GPU that one WhisperReplica takes; 0.5 puts two on each."""


def build(args: BuildArgs) -> Application:
    """The application, ready to run.

    Raises:
        ConfigurationError: settings that can't work, in a sentence that names them.
    """
    settings = load_settings(_settings_file(args.config))
    preflight.refuse(settings)
    device = _device(args)
    whisper = WhisperReplica.options(**_placement(device, args.gpu_fraction)).bind(settings, device)
    summarizer = Summarizer.bind(settings)
    crawler = Crawler.bind(settings) if settings.crawl.enabled else None
    dispatcher = Dispatcher.bind(settings, Splitter.bind(settings), whisper, summarizer, crawler)
    return Ingress.bind(settings, dispatcher, summarizer)


def _settings_file(config: str) -> Path:
    path = Path(config)
    if path.is_absolute():
        return path
    with resources.as_file(resources.files("configs")) as folder:
        known = {file.stem: file for file in folder.glob("*.yaml")}
    if config not in known:
        raise ConfigurationError(
            f"There is no settings file {config!r}: use an absolute path or one of {sorted(known)}."
        )
    return known[config]


def _device(args: BuildArgs) -> str:
    if args.device == "auto":
        return "cuda" if _gpus() else "cpu"
    return args.device


def _gpus() -> float:
    return float(ray.cluster_resources().get("GPU", 0.0))


def _placement(device: str, gpu_fraction: float) -> dict[str, Any]:
    """Resources and scale of WhisperReplica; ``serve_config.yaml`` may override the scale."""
    if device == "cpu":
        return {"num_replicas": 1, "ray_actor_options": {"num_cpus": CPU_SHARE}}
    return {
        "ray_actor_options": {"num_cpus": GPU_HOST_SHARE, "num_gpus": gpu_fraction},
        "autoscaling_config": {"min_replicas": 1, "max_replicas": max(1, int(_gpus() / gpu_fraction))},
    }
