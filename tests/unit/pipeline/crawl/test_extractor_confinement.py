import pytest

from pipeline.crawl.extractor_confinement import AuditHook

HOOK = AuditHook(("127.0.0.1", 4711), "/opt/deno")


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
        AuditHook(("127.0.0.1", 1), None)("subprocess.Popen", ("/opt/deno", [], None, None))
