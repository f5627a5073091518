import pytest

from pipeline.crawl.extractor_child import _AuditHook, _parameters
from pipeline.crawl.extractor_messages import ExtractRequest

HOOK = _AuditHook(("127.0.0.1", 4711), "/opt/deno")
REQUEST = ExtractRequest(
    url="https://a.example/", extractors=(), formats="b", proxy="http://u:p@127.0.0.1:4711", timeout_s=1.0,
    max_process_bytes=1, scratch="/tmp/a", js_runtime="/opt/deno", user_agent="Mine/1",
)  # fmt: skip


@pytest.mark.parametrize(
    ("event", "arguments"),
    [
        ("socket.connect", (None, ("127.0.0.1", 4711))),
        ("socket.getaddrinfo", ("127.0.0.1", 4711, 0, 0, 0)),
        ("subprocess.Popen", ("/opt/deno", ["deno", "run"], None, None)),
        ("open", ("/tmp/a/fragment", "wb", 0)),
    ],
)
def test_what_reading_a_page_needs_is_let_through(event: str, arguments: tuple[object, ...]) -> None:
    HOOK(event, arguments)


@pytest.mark.parametrize(
    ("event", "arguments"),
    [
        ("socket.connect", (None, ("127.0.0.1", 6379))),
        ("socket.connect", (None, ("169.254.169.254", 80))),
        ("socket.connect", (None, ("::1", 4711, 0, 0))),
        ("socket.connect", (None, "/var/run/docker.sock")),
        ("socket.getaddrinfo", ("secret.evil.example", 80, 0, 0, 0)),
        ("socket.sendto", (None, ("10.0.0.1", 53))),
        ("subprocess.Popen", ("ffmpeg", ["ffmpeg"], None, None)),
        ("os.system", (b"id",)),
        ("os.exec", ("/bin/sh", [], None)),
    ],
)
def test_everything_else_is_refused(event: str, arguments: tuple[object, ...]) -> None:
    with pytest.raises(PermissionError):
        HOOK(event, arguments)


def test_without_a_runtime_no_program_is_started() -> None:
    with pytest.raises(PermissionError):
        _AuditHook(("127.0.0.1", 1), None)("subprocess.Popen", ("/opt/deno", [], None, None))


def test_the_library_is_told_what_the_request_says() -> None:
    parameters = _parameters(REQUEST)
    assert parameters["proxy"] == REQUEST.proxy
    assert parameters["http_headers"] == {"User-Agent": "Mine/1"}
    assert parameters["js_runtimes"] == {"deno": {"path": "/opt/deno"}}
    assert "cookiefile" not in parameters
