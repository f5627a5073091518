from __future__ import annotations

import io
import wave

import httpx
import pytest

from tests.support import recordings
from tests.support.recordings import encode, tone
from tests.unit.deployments.api.world import World, client_of, detail, fields

ROUTE = "/api/whisper/extract_audio"
SPEECH = encode(tone(1.0), "mp4", picture=True)


def no_file_is_left(world: World) -> bool:
    return all(file.closed for file in world.extractor.files) and world.extractor.places == 1


async def test_the_sound_of_a_video_comes_as_wav(client: httpx.AsyncClient, world: World) -> None:
    answer = await client.post(ROUTE, files={"file": ("clip.mp4", SPEECH)})
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "audio/wav"
    assert answer.headers["content-disposition"] == 'attachment; filename="extracted_audio.wav"'
    assert answer.headers["content-length"] == str(len(answer.content))
    with wave.open(io.BytesIO(answer.content)) as sound:
        assert (sound.getframerate(), sound.getsampwidth(), sound.getnchannels()) == (22_050, 2, 1)
        assert 0.9 < sound.getnframes() / 22_050 < 1.1
    assert no_file_is_left(world)


@pytest.mark.parametrize(
    ("name", "media_type", "magic"),
    [
        ("mp3", "audio/mpeg", (b"ID3",)),
        ("flac", "audio/flac", (b"fLaC",)),
        ("ogg", "audio/ogg", (b"OggS",)),
        ("m4a", "audio/mp4", (b"\0\0\0\x1cftyp", b"\0\0\0\x20ftyp")),
        ("wav", "audio/wav", (b"RIFF",)),
    ],
)
async def test_formats(client: httpx.AsyncClient, name: str, media_type: str, magic: tuple[bytes, ...]) -> None:
    answer = await client.post(ROUTE, files={"file": ("clip", SPEECH)}, data={"output_format": name})
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == media_type
    assert answer.headers["content-disposition"].endswith(f'"extracted_audio.{name.lower()}"')
    assert answer.content.startswith(magic)


async def test_options_come_as_query_or_form_and_the_form_wins(client: httpx.AsyncClient) -> None:
    answer = await client.post(
        f"{ROUTE}?sample_rate=8000&bit_depth=1", files={"file_upload": ("clip", SPEECH)}, data={"bit_depth": "3"}
    )
    assert (answer.content[24:28], answer.content[34:36]) == ((8000).to_bytes(4, "little"), b"\x18\0")


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"bit_depth": "5"}, "bit_depth"),
        ({"bit_depth": "0"}, "bit_depth"),
        ({"bit_depth": "1", "output_format": "flac"}, "bit_depth"),
        ({"sample_rate": "7999"}, "sample_rate"),
        ({"sample_rate": "many"}, "sample_rate"),
        ({"output_format": "exe"}, "output_format"),
        ({"sample_rat": "8000"}, "sample_rat"),
    ],
)
@pytest.mark.parametrize("place", ["params", "data"])
async def test_what_can_t_be_is_named(
    client: httpx.AsyncClient, world: World, options: dict[str, str], field: str, place: str
) -> None:
    given = {place: options}
    answer = await client.post(ROUTE, files={"file": ("clip", SPEECH)}, **given)  # type: ignore[arg-type]
    assert answer.status_code == 422
    assert fields(answer.json()["detail"]) == [field]
    assert no_file_is_left(world)


@pytest.mark.parametrize(
    ("content", "error"),
    [
        (recordings.picture_only(), "no_audio_stream"),
        (b"#EXTM3U\nfile:///etc/passwd\n", "media_undecodable"),
        (b"PK\3\4", "media_undecodable"),
    ],
)
async def test_what_has_no_sound(client: httpx.AsyncClient, world: World, content: bytes, error: str) -> None:
    detail(await client.post(ROUTE, files={"file": ("clip", content)}), 422, error)
    assert no_file_is_left(world)


async def test_no_file(client: httpx.AsyncClient) -> None:
    detail(await client.post(ROUTE), 400, "source_missing")
    detail(await client.post(ROUTE, data={"sample_rate": "8000"}), 400, "source_missing")


async def test_two_files(client: httpx.AsyncClient, world: World) -> None:
    files = [("file", ("a", SPEECH)), ("file", ("b", SPEECH))]
    detail(await client.post(ROUTE, files=files), 400, "source_conflict")
    assert no_file_is_left(world)


async def test_a_file_over_the_limit(world: World) -> None:
    async with client_of(world.api(media={"max_upload_bytes": 100})) as client:
        detail(await client.post(ROUTE, files={"file": ("clip", SPEECH)}), 413, "upload_too_large")


async def test_no_room(client: httpx.AsyncClient, world: World) -> None:
    world.extractor.places = 0
    answer = await client.post(ROUTE, files={"file": ("clip", SPEECH)})
    detail(answer, 503, "extractions_full")
    assert answer.headers["retry-after"] == "10"
