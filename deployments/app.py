"""The application graph: ``serve run`` and ``serve deploy`` import ``build``, which connects the deployments.

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
from deployments.cluster.shared_storage import verify_shared_storage
from deployments.config_check import refuse_unknown_keys
from deployments.replicas.crawler_replica import crawler_deployment
from deployments.replicas.dispatcher_replica import dispatcher_deployment
from deployments.replicas.ingress_replica import ingress_deployment
from deployments.replicas.splitter_replica import splitter_deployment
from deployments.replicas.summarizer_replica import summarizer_deployment
from deployments.replicas.whisper_replica import whisper_deployment
from deployments.wiring import settings_file
from pipeline.errors import ConfigurationError
from pipeline.settings import load_settings

CPU_SHARE = 1.0
"""Logical CPUs of a WhisperReplica without a GPU."""
GPU_HOST_SHARE = 0.0
"""Logical CPUs of a WhisperReplica with a GPU: none, so that nodes that offer Ray no CPUs run only these replicas. A
node that also ran a Splitter could not be removed once its audio is decoded."""

SCALING_POLICY = "deployments.autoscaling:QueuedAudioPolicy"


class BuildArgs(BaseModel):
    """The application's ``args`` in the Serve config. No secrets: Serve's REST API shows them."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    config: str = "cpu"
    """The name of a file of the ``configs`` package, without ``.yaml``, or the absolute path of a settings file."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """The device for models. ``auto`` uses GPUs if a running node has one; with ``cuda``, GPU nodes may join later."""
    gpu_fraction: float = Field(default=1.0, gt=0, le=1)
    """The share of a GPU that one WhisperReplica takes. With 0.5, two replicas share a GPU."""


def build(args: BuildArgs) -> Application:
    """Return the application, ready to run.

    Raises:
        ConfigurationError: the settings can't work; the message names them.
    """
    if ray.is_initialized():  # it is not when the graph is only inspected
        refuse_unknown_keys(local_drivers())
    settings = load_settings(settings_file(args.config))
    preflight.refuse(settings)
    device = _device(args)
    may_have_several_nodes = args.device == "cuda" or len(alive_nodes()) > 1
    storage_id = verify_shared_storage(settings) if may_have_several_nodes else None
    whisper = whisper_deployment.options(**_placement(device, args)).bind(settings, device, storage_id)
    summarizer = summarizer_deployment.bind(settings)
    crawler = crawler_deployment.bind(settings, storage_id) if settings.crawl.enabled else None
    splitter = splitter_deployment.bind(settings, storage_id)
    dispatcher = dispatcher_deployment.bind(settings, splitter, whisper, summarizer, crawler, device, storage_id)
    return ingress_deployment.bind(settings, dispatcher, summarizer, storage_id)


def _device(args: BuildArgs) -> str:
    if args.device == "auto":
        return "cuda" if gpus() else "cpu"
    if args.device == "cuda" and not gpus() and not gpu_nodes_may_come():
        raise ConfigurationError(
            "device: cuda needs a GPU, but no node of this cluster has one and no autoscaler can add one: "
            "start a GPU node first, or set device: auto."
        )
    return args.device


def _placement(device: str, args: BuildArgs) -> dict[str, Any]:
    """Return the resources and the scale of WhisperReplica; the Serve config may override the scale."""
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
