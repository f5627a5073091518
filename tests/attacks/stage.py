"""Plays attacks against a service, one after another, and starts the service anew where one has spoilt it."""

from __future__ import annotations

import asyncio
import json
import tempfile
import threading
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx

from tests.attacks.case import Case, Scene
from tests.attacks.hostile_site import HostileSite, hostile_site
from tests.attacks.observe import Observed, Observer, Plan, observing
from tests.attacks.service import ATTACKER, Target, running
from tests.attacks.victim import Clips
from tests.attacks.wire import allow_many_sockets
from tests.standins.llm import LlmServer, running_llm_server
from tests.support import recordings, speech
from tests.support.processes import haproxy
from tests.support.tables import percentile

CLIP_S = 2.9
MAX_GROWTH_MIB = 5000.0
MAX_DISK_MIB = 14_000.0
"""Where the harness ends an attack, to keep the machine."""
MAX_SECONDS = 200.0
WIND_UP_S = 20.0
CALM_WITHIN_S = 30.0
QUERY = "/api/whisper/tasks/query"


@dataclass(frozen=True)
class Outcome:
    """The outcome of an attack.

    Attributes:
        idle_s: seconds of the victim's clip on the idle service.
        notes: what the attacker saw.
        flaws: what it must not have seen.
    """

    case: Case
    observed: Observed
    idle_s: float | None
    notes: tuple[str, ...]
    flaws: tuple[str, ...]

    @property
    def told(self) -> dict[str, Any]:
        return {"idle_s": self.idle_s, "notes": self.notes, "flaws": self.flaws}


class Stage:
    """A service and all that an attack needs.

    Args:
        root: the checkout that is attacked.
        model: its Whisper model.
        front: ``python`` for Serve's own proxy, ``haproxy`` for HAProxy mode.
        small: whether attacks are only as large as a test can bear. The service is then not started again after an
            attack that may spoil it: the next one shows whether it did.
    """

    def __init__(self, root: Path, *, model: str = "base", front: str = "python", small: bool = False) -> None:
        self._root, self._model, self._front, self._small = root, model, front, small
        self._clip = victims_clip()
        self._stack = ExitStack()
        self._service = ExitStack()
        self._target: Target | None = None
        self._settings: Mapping[str, str] = {}
        self.idle_s: float | None = None

    def __enter__(self) -> Self:
        allow_many_sockets()
        self._site: HostileSite = self._stack.enter_context(hostile_site(self._clip))
        self._llm: LlmServer = self._stack.enter_context(running_llm_server())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()
        self._stack.close()

    def play(self, case: Case) -> Outcome:
        """Attack the service and return the observation."""
        case = case.made_small() if self._small else case
        target = self._ready(case.settings)
        scene = Scene(target, self._site, self._small)
        self._site.requests.clear()
        clips = Clips(self._clip, case.clips, case.clip_limit_s, case.way, self._site.url("/clip.wav", "127.0.0.2"))
        from_begin = case.max_process_growth_mib is not None
        with observing(Plan(target.port, target.process.pid, target.home, clips, from_begin)) as observer:
            self._attack(case, scene, observer)
            observed = observer.finish()
        if case.name == "idle":
            self.idle_s = percentile(observed.clips_s, 50)
        if case.spoils or not self._is_calm(target):
            self._stop()
        return Outcome(case, observed, self.idle_s, tuple(scene.notes), tuple(scene.flaws))

    def _attack(self, case: Case, scene: Scene, observer: Observer) -> None:
        started = time.monotonic()
        attacker = threading.Thread(target=_run, args=(case, scene), daemon=True)
        attacker.start()
        while not self._has_ended(case, scene, observer, attacker, time.monotonic() - started):
            if scene.is_in or not attacker.is_alive():
                observer.begin_clips()
            time.sleep(0.05)
        scene.end()
        attacker.join(WIND_UP_S)
        if attacker.is_alive():
            scene.notes.append("the attacker did not end")

    def _has_ended(
        self, case: Case, scene: Scene, observer: Observer, attacker: threading.Thread, seconds: float
    ) -> bool:
        if observer.growth_mib > MAX_GROWTH_MIB or observer.disk_mib > MAX_DISK_MIB or seconds > MAX_SECONDS:
            scene.flaws.append(
                f"stopped by the harness after {seconds:.0f} s, at {observer.growth_mib:.0f} MiB of memory "
                f"and {observer.disk_mib:.0f} MiB of files"
            )
            return True
        done = scene.is_held or not attacker.is_alive()
        served = observer.clips_done if case.clips else done
        return seconds > case.seconds and served and (scene.is_in or done)

    def _ready(self, settings: Mapping[str, str]) -> Target:
        """Return the service with these settings; start it if it does not run so already."""
        if self._target is None or dict(settings) != dict(self._settings):
            self._stop()
            self._settings = settings
            environment = self._of_model_server() | dict(settings)
            if self._front == "haproxy":
                folder = self._service.enter_context(tempfile.TemporaryDirectory(prefix="mah-", dir="/tmp"))
                environment |= haproxy(Path(folder))
            self._target = self._service.enter_context(running(self._root, environment, model=self._model))
            self._warm_up(self._target)
        return self._target

    def _of_model_server(self) -> dict[str, str]:
        return {
            "MURMURATION_LLM__BASE_URL": self._llm.base_url,
            "MURMURATION_LLM__MODEL": "stand-in",
            "MURMURATION_LLM__TIMEOUT_S": "60",
        }

    def _stop(self) -> None:
        self._service.close()
        self._target = None

    def _warm_up(self, target: Target) -> None:
        """Send clips until everything has been used once; the last one tells how long one takes at rest."""
        with target.client(ATTACKER) as client:
            for _ in range(3):
                started = time.monotonic()
                self._transcribe(client)
                self.idle_s = min(self.idle_s or 60.0, time.monotonic() - started)

    def _transcribe(self, client: httpx.Client) -> None:
        files = {"file_upload": ("clip.wav", self._clip)}
        created = client.post("/api/whisper/tasks/create", params={"priority": "high"}, files=files).raise_for_status()
        parameters = {"task_id": created.json()["data"]["id"], "wait_s": 60}
        client.get("/api/whisper/tasks/result", params=parameters).raise_for_status()

    def _is_calm(self, target: Target) -> bool:
        """Remove the remains of an attack; return whether the service is as it was."""
        deadline = time.monotonic() + CALM_WITHIN_S
        try:
            with target.client(ATTACKER, 10.0) as client:
                for task in _tasks(client):
                    client.delete("/api/whisper/tasks/delete", params={"task_id": task["id"]})
                while time.monotonic() < deadline:
                    started = time.monotonic()
                    self._transcribe(client)
                    if time.monotonic() - started < (self.idle_s or 1.0) + 1.0:
                        return True
        except (httpx.HTTPError, json.JSONDecodeError):
            return False
        return False


def _tasks(client: httpx.Client) -> list[dict[str, Any]]:
    condition = {"status": None, "priority": None, "engine_name": None, "has_result": None, "has_error": None}
    answer = client.post(QUERY, json={**condition, "include_result": False, "limit": 500})
    tasks: list[dict[str, Any]] = answer.raise_for_status().json()["data"]["tasks"]
    return tasks


def _run(case: Case, scene: Scene) -> None:
    try:
        asyncio.run(case.attack(scene))
    except Exception as error:  # noqa: BLE001 - an attack that breaks is part of the report
        scene.notes.append(f"the attacker met {type(error).__name__}: {error}"[:200])
    scene.begin()


def victims_clip() -> bytes:
    """Make a recording of 2.9 s."""
    sample = min(speech.of_language("en"), key=lambda sample: abs(sample.duration_s - CLIP_S))
    return recordings.wav(speech.load(sample.path))
