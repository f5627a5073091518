"""The graph: ``build(args)`` binds the deployments to each other and is what ``serve run`` and ``serve deploy`` import.

::

    Ingress ──► Dispatcher ──► Crawler
          │               ├──► Splitter
          │               ├──► WhisperReplica
          └───────────────┴──► Summarizer
"""

# No postponed annotations here: Serve reads the type of ``build``'s parameter to validate the config's ``args``.
from typing import Any, Literal

import ray
from pydantic import BaseModel, ConfigDict, Field
from ray.serve import Application

from deployments.cluster import preflight
from deployments.cluster.nodes import alive_nodes, gpu_nodes_may_come, gpus, local_drivers
from deployments.cluster.shared_storage import check_cluster
from deployments.config_check import refuse_unknown_keys
from deployments.replicas.crawler_replica import Crawler
from deployments.replicas.dispatcher_replica import Dispatcher
from deployments.replicas.ingress_replica import Ingress
from deployments.replicas.splitter_replica import Splitter
from deployments.replicas.summarizer_replica import Summarizer
from deployments.replicas.whisper_replica import WhisperReplica
from deployments.wiring import settings_file
from pipeline.errors import ConfigurationError
from pipeline.settings import load_settings

CPU_SHARE = 1.0
"""Logical CPUs of a WhisperReplica without a GPU."""
GPU_HOST_SHARE = 0.0
"""And of one with a GPU: none, so that nodes which offer Ray no CPUs get these replicas and no others. A node that also
held a Splitter could not go when its audio is decoded."""

SCALING_POLICY = "deployments.autoscaling:QueuedAudioPolicy"


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
    if ray.is_initialized():  # not where the graph is only looked at
        refuse_unknown_keys(local_drivers())
    settings = load_settings(settings_file(args.config))
    preflight.refuse(settings)
    device = _device(args)
    may_have_several_nodes = args.device == "cuda" or len(alive_nodes()) > 1
    mark = check_cluster(settings) if may_have_several_nodes else None
    whisper = WhisperReplica.options(**_placement(device, args)).bind(settings, device, mark)
    summarizer = Summarizer.bind(settings)
    crawler = Crawler.bind(settings, mark) if settings.crawl.enabled else None
    splitter = Splitter.bind(settings, mark)
    dispatcher = Dispatcher.bind(settings, splitter, whisper, summarizer, crawler, device, mark)
    return Ingress.bind(settings, dispatcher, summarizer, mark)


def _device(args: BuildArgs) -> str:
    if args.device == "auto":
        return "cuda" if gpus() else "cpu"
    if args.device == "cuda" and not gpus() and not gpu_nodes_may_come():
        raise ConfigurationError(
            "device: cuda asks for GPUs, but no node of this cluster has one, and no autoscaler is there to bring one: "
            "start a GPU node first, or say device: auto."
        )
    return args.device


def _placement(device: str, args: BuildArgs) -> dict[str, Any]:
    """Resources and scale of WhisperReplica; the Serve config may override the scale."""
    if device == "cpu":
        return {"num_replicas": 1, "ray_actor_options": {"num_cpus": CPU_SHARE}}
    return {
        "ray_actor_options": {"num_cpus": GPU_HOST_SHARE, "num_gpus": args.gpu_fraction},
        "autoscaling_config": {
            "min_replicas": 1,
            "max_replicas": max(1, int(gpus() / args.gpu_fraction)),
            "policy": {"policy_function": SCALING_POLICY, "policy_kwargs": {"config": args.config}},
        },
    }
