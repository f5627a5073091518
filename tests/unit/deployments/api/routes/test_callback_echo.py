from __future__ import annotations

import httpx
import pytest

from tests.unit.deployments.api.world import detail

ROUTE = "/api/whisper/callback/test"


async def test_a_callback_comes_back(client: httpx.AsyncClient) -> None:
    record = {"id": 1, "status": "completed", "result": {"text": "你好"}}
    answer = await client.post(ROUTE, json=record)
    assert answer.status_code == 200
    assert answer.json()["code"] == 200
    assert answer.json()["data"] == {"message": "The callback has arrived.", "callback_data": record}


@pytest.mark.parametrize("body", [b"", b"[]", b"1", b"{", b'{"a": NaN}', b"\xff", b"[" * 100_000])
async def test_what_is_not_an_object(client: httpx.AsyncClient, body: bytes) -> None:
    detail(await client.post(ROUTE, content=body), 422, "invalid_value")


@pytest.mark.parametrize(
    ("sent", "kept"), [(rb"\ud800", "\ufffd"), (rb"\ud83d\ude00", "😀"), (rb"a\udfffb", "a\ufffdb")]
)
async def test_halves_of_surrogate_pairs(client: httpx.AsyncClient, sent: bytes, kept: str) -> None:
    answer = await client.post(ROUTE, content=b'{"%s": ["%s"]}' % (sent, sent))
    assert answer.json()["data"]["callback_data"] == {kept: [kept]}
