from pipeline.crawl.extractor_child import _parameters
from pipeline.crawl.extractor_messages import ExtractRequest

REQUEST = ExtractRequest(
    url="https://a.example/", extractors=(), formats="b", proxy="http://u:p@127.0.0.1:4711", timeout_s=1.0,
    max_process_bytes=1, scratch="/tmp/a", js_runtime="/opt/deno", user_agent="Mine/1",
)  # fmt: skip


def test_the_library_is_told_what_the_request_says() -> None:
    parameters = _parameters(REQUEST)
    assert parameters["proxy"] == REQUEST.proxy
    assert parameters["http_headers"] == {"User-Agent": "Mine/1"}
    assert parameters["js_runtimes"] == {"deno": {"path": "/opt/deno"}}
    assert "cookiefile" not in parameters
