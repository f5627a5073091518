"""Real child processes: what they may not do, how they end, and that nobody else notices."""

from __future__ import annotations

import io
import os
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest

from pipeline.domain.audio.extraction import ExtractionOptions
from pipeline.errors import DecoderCrashed, DecodingTooCostly, MediaUndecodable, OutputTooLarge
from pipeline.media.sandbox.sandbox import Sandbox, SandboxLimits
from pipeline.media.sandbox.sandboxed_decoder import SandboxedDecoder, extract_in
from tests.support.recordings import encode, flac_of_silence, tone

BOMB = flac_of_silence(14_000, 8000)
"""200 KB that unfold to 32 hours."""


@pytest.fixture
def sandbox(monkeypatch: pytest.MonkeyPatch) -> Iterator[Sandbox]:
    monkeypatch.setenv("MURMURATION_CALLBACK__SECRET", "whsec_hush")
    sandbox = Sandbox(SandboxLimits())
    sandbox.start()
    yield sandbox
    sandbox.close()


def decoder(sandbox: Sandbox, content: bytes = BOMB, max_duration_s: float = 1e9) -> SandboxedDecoder:
    return SandboxedDecoder(sandbox, io.BytesIO(content), max_duration_s)


def is_well(sandbox: Sandbox) -> bool:
    blocks = decoder(sandbox, encode(tone(1.0), "flac")).blocks()
    return bool(np.array_equal(np.concatenate(list(blocks)), tone(1.0)))


def fork_server(sandbox: Sandbox) -> psutil.Process:
    assert sandbox._fork_server is not None
    return psutil.Process(sandbox._fork_server.pid)


def wait_until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.01)


def test_a_child_has_its_socket_and_nothing_else(sandbox: Sandbox) -> None:
    blocks = decoder(sandbox).blocks()
    next(blocks)
    [child] = fork_server(sandbox).children()
    limits = Path(f"/proc/{child.pid}/limits").read_text()
    for limit in ("open files", "file size", "core file size"):
        assert re.search(rf"^Max {limit} +0 +0 ", limits, re.MULTILINE), limits
    links = {int(link.name): str(link.readlink()) for link in Path(f"/proc/{child.pid}/fd").iterdir()}
    assert links.keys() == {0, 1, 2, 3}
    assert links[3].startswith("socket:")
    assert b"hush" not in Path(f"/proc/{fork_server(sandbox).pid}/environ").read_bytes()
    if os.getuid() == 0:
        assert set(child.uids()) == {65_534}
    assert fork_server(sandbox).num_threads() == 1  # or a child might inherit a lock that nobody will open
    blocks.close()


def test_a_bomb_meets_its_limit_of_processor_time() -> None:
    sandbox = Sandbox(SandboxLimits(cpu_s=1, cpu_s_per_mib=0))
    with pytest.raises(DecodingTooCostly, match="more processor time"):
        list(decoder(sandbox).blocks())
    assert is_well(sandbox)
    sandbox.close()


def test_a_bomb_meets_its_limit_of_memory(sandbox: Sandbox) -> None:
    with pytest.raises((MediaUndecodable, DecodingTooCostly)):  # one frame of 18 hours, 2 GB when it is resampled
        list(decoder(sandbox, flac_of_silence(3, 1)).blocks())
    with pytest.raises((MediaUndecodable, DecodingTooCostly)):
        list(decoder(sandbox, flac_of_silence(3, 10)).blocks())
    assert is_well(sandbox)


def test_a_child_that_dies_fails_its_own_recording(sandbox: Sandbox) -> None:
    dying, living = decoder(sandbox).blocks(), decoder(sandbox).blocks()
    next(dying)
    [victim] = fork_server(sandbox).children()
    next(living)
    victim.kill()
    with pytest.raises(DecoderCrashed):
        list(dying)
    assert len(next(living)) > 0
    living.close()


def test_the_process_children_come_from_may_die(sandbox: Sandbox) -> None:
    blocks = decoder(sandbox).blocks()
    next(blocks)
    fork_server(sandbox).kill()
    with pytest.raises(DecoderCrashed):
        list(blocks)
    assert is_well(sandbox)


def test_a_child_nobody_listens_to_ends(sandbox: Sandbox) -> None:
    blocks = decoder(sandbox).blocks()
    next(blocks)
    [child] = fork_server(sandbox).children()
    blocks.close()
    wait_until(lambda: not child.is_running())


def test_nothing_is_left_when_the_sandbox_is_closed(sandbox: Sandbox) -> None:
    blocks = decoder(sandbox).blocks()
    next(blocks)
    family = [fork_server(sandbox), *fork_server(sandbox).children()]
    sandbox.close()
    wait_until(lambda: not any(process.is_running() for process in family))
    blocks.close()


def test_an_extraction_that_unfolds_is_cut_off(sandbox: Sandbox) -> None:
    target = io.BytesIO()
    with pytest.raises(OutputTooLarge, match="1,000,000 bytes"):
        list(
            extract_in(
                sandbox,
                io.BytesIO(BOMB),
                target,
                ExtractionOptions(sample_rate=8000),
                max_duration_s=1e9,
                max_bytes=1_000_000,
            )
        )
    assert len(target.getvalue()) <= 1_000_000
