"""A language model's server on this machine, for tests and for trying things out: OpenAI's chat completions over HTTP.

    python -m tests.standins.llm --port 9100

It has read nothing: its summaries are made of lines of the transcript it is shown. Most names of models get a proper
answer; those in ``BEHAVIOURS`` get what the name says.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import re
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import Future
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from pipeline.testing.local_receiver import LocalReceiver, ReceivedRequest, head, local_receiver

KEY = "sk-standin-0123456789"
LINE = re.compile(r"^\[(\d\d:\d\d:\d\d)\] (.*)$", re.MULTILINE)
SMALL_CONTEXT_CHARACTERS = 4_000

Answer = tuple[int, dict[str, str], bytes]


@dataclass
class LlmServer:
    """The state of the server.

    Attributes:
        receiver: the sockets.
        key: the only key it accepts; ``None`` for any.
        seen: bodies of the calls, in order.
        failed: how often each model has failed.
    """

    receiver: LocalReceiver
    key: str | None = None
    seen: list[dict[str, Any]] = field(default_factory=list)
    failed: Counter[str] = field(default_factory=Counter)
    numbers: itertools.count[int] = field(default_factory=lambda: itertools.count(1))

    @property
    def base_url(self) -> str:
        return self.receiver.url("/v1")

    async def complete(self, request: ReceivedRequest, writer: asyncio.StreamWriter) -> None:
        body = json.loads(request.body)
        self.seen.append(body)
        if self.key and request.headers.get("authorization") != f"Bearer {self.key}":
            answer = error(401, f"Incorrect API key provided: {request.headers['authorization']}", "invalid_api_key")
        elif self.is_silent(body["model"]):
            await asyncio.Event().wait()
            return
        else:
            answer = BEHAVIOURS.get(body["model"], LlmServer.proper)(self, body)
        status, headers, content = answer
        writer.write(head(status, {"Content-Length": str(len(content)), "Connection": "close", **headers}) + content)
        await writer.drain()

    def is_silent(self, model: str) -> bool:
        """``silent`` always is, ``silent-once…`` at its first call."""
        self.failed[model] += model.startswith("silent")
        return model == "silent" or (model.startswith("silent") and self.failed[model] == 1)

    def calls(self, model: str) -> int:
        return sum(body["model"] == model for body in list(self.seen))

    def proper(self, body: dict[str, Any]) -> Answer:
        return self.completion(body, written(body))

    def once(self, body: dict[str, Any], failure: Answer) -> Answer:
        self.failed[body["model"]] += 1
        return failure if self.failed[body["model"]] == 1 else self.proper(body)

    def completion(self, body: dict[str, Any], text: str, finish_reason: str = "stop", **changes: Any) -> Answer:
        sent = sum(len(message["content"].split()) for message in body["messages"])
        usage = {"prompt_tokens": sent, "completion_tokens": len(text.split())}
        answer = {
            "id": f"chatcmpl-{next(self.numbers)}",
            "object": "chat.completion",
            "created": 1_760_000_000,
            "model": body["model"],
            "choices": [
                {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": finish_reason}
            ],
            "usage": usage | {"total_tokens": sum(usage.values())},
        }
        return json_answer(200, answer | changes)

    def small(self, body: dict[str, Any]) -> Answer:
        if sum(len(message["content"]) for message in body["messages"]) > SMALL_CONTEXT_CHARACTERS:
            return error(400, "This model's maximum context length is 1000 tokens.", "context_length_exceeded")
        return self.proper(body)


def json_answer(status: int, content: Any, headers: dict[str, str] | None = None) -> Answer:
    return status, {"Content-Type": "application/json", **(headers or {})}, json.dumps(content).encode()


def error(status: int, message: str, code: str | None = None, headers: dict[str, str] | None = None) -> Answer:
    return json_answer(status, {"error": {"message": message, "type": "error", "param": None, "code": code}}, headers)


def rate_limited(seconds: float) -> Answer:
    return error(429, "Rate limit reached.", "rate_limit_exceeded", {"Retry-After": str(seconds)})


BEHAVIOURS: dict[str, Callable[[LlmServer, dict[str, Any]], Answer]] = {
    "refuses-key": lambda *_: error(401, f"Incorrect API key provided: {KEY}", "invalid_api_key"),
    "no-access": lambda *_: error(403, "Not for you."),
    "unknown-model": lambda *_: error(404, "The model does not exist.", "model_not_found"),
    "no-credit": lambda *_: error(429, "You exceeded your current quota.", "insufficient_quota", {"Retry-After": "1"}),
    "rate-limited": lambda *_: rate_limited(7),
    "rate-limited-long": lambda *_: rate_limited(300),
    "rate-limited-once": lambda server, body: server.once(body, rate_limited(0.05)),
    "fails": lambda *_: error(500, "Out of memory at /srv/secret/path."),
    "fails-once": lambda server, body: server.once(
        body, error(503, "Loading the model.", headers={"Retry-After": "0.05"})
    ),
    "odd": lambda *_: error(422, "No.", "odd\nname"),
    "too-long": lambda *_: error(400, "This model's maximum context length is 10 tokens."),
    "garbage": lambda *_: (200, {"Content-Type": "application/json"}, b'{"id": "chatcm'),
    "garbage-page": lambda *_: (200, {"Content-Type": "text/html"}, b"<html>Welcome to nginx!</html>"),
    "other-json": lambda *_: json_answer(200, {"hello": "world"}),
    "no-choices": lambda server, body: server.completion(body, "", choices=[]),
    "empty": lambda server, body: server.completion(body, ""),
    "cut-off": lambda server, body: server.completion(body, "They met and", "length"),
    "thinks": lambda server, body: server.completion(body, f"<think>\nHm.\n</think>\n\n{written(body)}"),
    "fences": lambda server, body: server.completion(body, f"Here it is:\n```json\n{written(body)}\n```"),
    "uncounted": lambda server, body: server.completion(body, written(body), usage=None),
    "wrong-form": lambda server, body: server.completion(body, '{"title": "", "chapters": [{"start": "soon"}]}'),
    "wrong-form-once": lambda server, body: server.once(body, server.completion(body, '{"title": "Half a summary"}')),
    "late-chapter-once": lambda server, body: server.once(body, server.completion(body, late(written(body)))),
    "small": LlmServer.small,
}


def written(body: dict[str, Any]) -> str:
    """Return lines of the transcript, as a summary, as notes or in parts."""
    instructions, material = (body["messages"][number]["content"] for number in (0, 1))
    lines = LINE.findall(material)
    if "one note a line" in instructions:
        return "\n".join(f"[{time}] {said}" for time, said in lines[:: max(1, len(lines) // 3)])
    if "JSON object" in instructions:
        return json.dumps(parts(lines))
    told = " ".join(f"{sentence(said)} [{time}]" for time, said in spread(lines, 3))
    return f"The recording begins so: {told}" if told else "Nothing was said."


def parts(lines: list[tuple[str, str]]) -> dict[str, Any]:
    words = Counter(word.lower() for _, said in lines for word in re.findall(r"\w{5,}", said))
    return {
        "title": " ".join(lines[0][1].split()[:5]),
        "summary": " ".join(sentence(said) for _, said in spread(lines, 2)),
        "chapters": [
            {"start": time, "title": " ".join(said.split()[:4]), "summary": sentence(said)}
            for time, said in spread(lines, 4)
        ],
        "action_items": [sentence(said) for _, said in lines if re.search(r"\b(must|have to|need to)\b", said)],
        "keywords": [word for word, _ in words.most_common(5)],
    }


def late(text: str) -> str:
    summary = json.loads(text)
    summary["chapters"][-1]["start"] = "99:00:00"
    return json.dumps(summary)


def sentence(said: str) -> str:
    return re.split(r"(?<=[.!?。])\s", said)[0]


def spread(lines: list[tuple[str, str]], number: int) -> list[tuple[str, str]]:
    step = max(1, len(lines) // number)
    return lines[::step][:number]


@asynccontextmanager
async def llm_server(key: str | None = None, port: int = 0) -> AsyncIterator[LlmServer]:
    """Run the server until the block ends."""
    async with local_receiver({}, port=port) as receiver:
        server = LlmServer(receiver, key)
        receiver.behaviours["/v1/chat/completions"] = server.complete
        yield server


@contextmanager
def running_llm_server(key: str | None = None) -> Iterator[LlmServer]:
    """Run the server beside the caller, in a thread of its own."""
    started: Future[tuple[LlmServer, Callable[[], object]]] = Future()

    async def serve() -> None:
        stop = asyncio.Event()
        async with llm_server(key) as server:
            started.set_result((server, partial(asyncio.get_running_loop().call_soon_threadsafe, stop.set)))
            await stop.wait()

    thread = threading.Thread(target=asyncio.run, args=(serve(),))
    thread.start()
    server, stop = started.result()
    try:
        yield server
    finally:
        stop()
        thread.join()


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--port", type=int, default=9100)
    parser.add_argument("--key", help="the only key to accept")
    chosen = parser.parse_args()
    async with llm_server(chosen.key, chosen.port) as server:
        print(f"listening on {server.base_url}", flush=True)  # noqa: T201 - it says where it is
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
