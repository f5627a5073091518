"""Routes that accept a link. The pipeline fetches it later, so nothing is fetched here."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

from pipeline.domain.links.platforms import CrawlRecord, Link, LinkKind
from pipeline.domain.tasks.task import Stage, Status
from tests.unit.deployments.api.world import World, client_of, detail, fields

TIKTOK = "https://www.tiktok.com/@USER/video/7332187682480590112"
DOUYIN = "https://v.douyin.com/abc/"
FORM = {
    "priority": "normal",
    "prepend_punctuations": "\"'“¿([{-",
    "no_speech_threshold": "0.6",
    "clip_timestamps": "0",
    "url": TIKTOK,
    "word_timestamps": "false",
    "platform": "tiktok",
    "temperature": "0.8,1.0",
    "task_type": "transcribe",
    "callback_url": "",
    "hallucination_silence_threshold": "0",
    "language": "",
    "condition_on_previous_text": "true",
    "compression_ratio_threshold": "1.8",
    "append_punctuations": "\"'.。,，!！?？:：”)]}、",
    "initial_prompt": "",
}
"""The call that existing clients make, as it stands."""


async def post(world: World, path: str, form: dict[str, str] | None = None, **more: Any) -> httpx.Response:
    async with client_of(world.api(fetch_available=True)) as client:
        return await client.post(path, data=form, **more)


async def test_the_call_of_existing_clients_is_taken_as_it_stands() -> None:
    world = World()
    answer = await post(world, "/api/tiktok/video_task", FORM)
    assert answer.status_code == 200
    body = answer.json()
    assert (body["code"], body["data"]["status"], body["data"]["platform"]) == (200, "queued", "tiktok")
    assert body["params"]["url"] == TIKTOK
    assert answer.headers["location"] == "/api/whisper/tasks/result?task_id=1"

    task = await world.store.get(1)
    assert (task.file_url, task.link, task.media_key) == (TIKTOK, Link(LinkKind.TIKTOK), None)
    assert task.first_stage is Stage.FETCHING
    assert task.options.temperature == (0.8, 1.0)
    assert task.options.condition_on_previous_text is True
    assert task.options.language is None
    assert world.dispatcher.wakes == 1


async def test_a_multipart_form_says_the_same() -> None:
    world = World()
    parts = {name: (None, value) for name, value in FORM.items()}
    answer = await post(world, "/api/tiktok/video_task", files=parts)
    assert answer.status_code == 200
    assert (await world.store.get(1)).options.temperature == (0.8, 1.0)


@pytest.mark.parametrize(
    ("route", "url", "given", "platform", "link"),
    [
        ("douyin", DOUYIN, "", "douyin", Link(LinkKind.DOUYIN)),
        ("tiktok", TIKTOK, "my label", "my label", Link(LinkKind.TIKTOK)),
        ("crawl", "https://vimeo.com/1", "", None, Link(LinkKind.ANY)),
        ("crawl", "https://vimeo.com/1", "vimeo", "vimeo", Link(LinkKind.ANY, "vimeo")),
    ],
)
async def test_each_route_takes_its_links(route: str, url: str, given: str, platform: str | None, link: Link) -> None:
    world = World()
    answer = await post(world, f"/api/{route}/video_task", {"url": url, "platform": given})
    assert answer.status_code == 200
    task = await world.store.get(1)
    assert (task.file_url, task.platform, task.link) == (url, platform, link)


async def test_what_the_site_says_need_not_be_kept() -> None:
    world = World()
    await post(world, "/api/tiktok/video_task", {"url": TIKTOK, "save_data_in_db": "false"})
    assert (await world.store.get(1)).link == Link(LinkKind.TIKTOK, keep_record=False)


@pytest.mark.parametrize(
    ("route", "form", "status", "error", "named"),
    [
        ("tiktok", {}, 400, "source_missing", []),
        ("tiktok", {"url": ""}, 400, "source_missing", []),
        ("tiktok", {"url": DOUYIN}, 422, "unsupported_link", ["url"]),
        ("tiktok", {"url": "https://tiktok.com.evil.example/@u/video/1"}, 422, "unsupported_link", ["url"]),
        ("douyin", {"url": TIKTOK}, 422, "unsupported_link", ["url"]),
        ("crawl", {"url": "http://10.0.0.1/film"}, 422, "url_not_allowed", ["url"]),
        ("crawl", {"url": "file:///etc/passwd"}, 422, "invalid_value", ["url"]),
        ("crawl", {"url": "https://a.example/" + "x" * 2048}, 422, "invalid_value", ["url"]),
        ("tiktok", {"url": TIKTOK, "callback_url": "http://10.0.0.1/"}, 422, "url_not_allowed", ["callback_url"]),
        ("tiktok", {"url": TIKTOK, "file_url": TIKTOK}, 422, "invalid_value", ["file_url"]),
        ("tiktok", {"url": TIKTOK, "beam_size": "many"}, 422, "invalid_value", ["beam_size"]),
        ("tiktok", {"url": TIKTOK, "save_data_in_db": "perhaps"}, 422, "invalid_value", ["save_data_in_db"]),
        ("tiktok", {"url": TIKTOK, "colour": "red"}, 422, "unknown_option", ["colour"]),
    ],
)
async def test_what_can_not_be_is_said_in_words(
    route: str, form: dict[str, str], status: int, error: str, named: list[str]
) -> None:
    world = World()
    answer = await post(world, f"/api/{route}/video_task", form)
    body = detail(answer, status, error)
    if named:
        assert fields(body) == named
    assert await world.task_count() == 0


async def test_a_file_is_not_what_these_routes_take() -> None:
    world = World()
    answer = await post(world, "/api/tiktok/video_task", {"url": TIKTOK}, files={"file_upload": ("a.mp3", b"sound")})
    detail(answer, 422, "invalid_value")
    assert (await world.task_count(), world.media.keys) == (0, set())


async def test_the_same_key_is_the_same_task() -> None:
    world = World()
    key = {"Idempotency-Key": "k1"}
    first = await post(world, "/api/tiktok/video_task", {"url": TIKTOK}, headers=key)
    again = await post(world, "/api/tiktok/video_task", {"url": TIKTOK}, headers=key)
    other = await post(world, "/api/tiktok/video_task", {"url": TIKTOK, "save_data_in_db": "false"}, headers=key)
    assert (first.json()["data"]["id"], again.json()["data"]["id"]) == (1, 1)
    detail(other, 409, "idempotency_conflict")


async def test_without_a_crawler_links_are_refused() -> None:
    world = World()
    async with client_of(world.api(fetch_available=False)) as client:
        answer = await client.post("/api/crawl/video_task", data={"url": "https://vimeo.com/1"})
    detail(answer, 422, "invalid_value")


async def test_what_the_site_said_can_be_read() -> None:
    world = World()
    now = datetime(2026, 11, 24, 6, tzinfo=UTC)
    lease = await world.processing(file_url=TIKTOK)
    await world.store.save_crawl_record(
        lease, CrawlRecord(platform="tiktok", media_id="7", url=TIKTOK, author="me", crawled_at=now, library="yt-dlp 1")
    )
    async with client_of(world.api()) as client:
        answer = await client.get("/api/crawl/records", params={"task_id": 1})
    data = answer.json()["data"]
    assert (data["task_id"], data["platform"], data["author"], data["title"]) == (1, "tiktok", "me", None)
    assert data["crawled_at"] == now.isoformat()


async def test_where_nothing_is_kept_nothing_is_found() -> None:
    world = World()
    await world.queued()
    async with client_of(world.api()) as client:
        detail(await client.get("/api/crawl/records", params={"task_id": 1}), 404, "crawl_record_not_found")
        detail(await client.get("/api/crawl/records", params={"task_id": 2}), 404, "task_not_found")


@pytest.mark.parametrize(
    ("error", "status"),
    [
        ("cookies_required", 502),
        ("private_or_removed", 422),
        ("geo_blocked", 502),
        ("rate_limited", 502),
        ("unsupported_link", 422),
        ("extractor_outdated", 502),
        ("source_unreachable", 502),
        ("too_large", 413),
        ("live_stream", 422),
    ],
)
async def test_a_crawl_that_failed_answers_with_the_status_of_its_cause(error: str, status: int) -> None:
    world = World()
    task = await world.failed(error, file_url=TIKTOK)
    assert task.status is Status.FAILED
    async with client_of(world.api()) as client:
        detail(await client.get("/api/whisper/tasks/result", params={"task_id": task.id}), status, error)


async def test_the_forms_are_documented() -> None:
    async with client_of(World().api()) as client:
        document = (await client.get("/openapi.json")).json()
    for route in ("tiktok", "douyin", "crawl"):
        body = document["paths"][f"/api/{route}/video_task"]["post"]["requestBody"]
        assert body["required"] is True
        forms = [content["schema"] for content in body["content"].values()]
        assert len(forms) == 2
        for form in forms:
            assert form["required"] == ["url"]
            assert set(FORM) | {"save_data_in_db"} <= form["properties"].keys()
            assert "file_url" not in form["properties"]
            assert form["properties"]["save_data_in_db"]["default"] is True


async def test_json_is_refused_with_the_way_to_send_a_link() -> None:
    answer = await post(World(), "/api/tiktok/video_task", json={"url": TIKTOK})
    assert "the link as url, in a form or query field" in detail(answer, 415, "unsupported_media_type")["message"]
