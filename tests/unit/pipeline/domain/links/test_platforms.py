import pytest

from pipeline.domain.links.platforms import PLATFORMS, LinkKind
from pipeline.errors import UnsupportedLink

TIKTOK, DOUYIN = PLATFORMS[LinkKind.TIKTOK], PLATFORMS[LinkKind.DOUYIN]
POST = "https://www.tiktok.com/@_/video/7332187682480590112"
SHOT = "https://www.douyin.com/video/7332187682480590112"


@pytest.mark.parametrize(
    "link",
    [
        "https://www.tiktok.com/@some.user/video/7332187682480590112",
        "https://www.tiktok.com/@some.user/video/7332187682480590112?is_from_webapp=1&sender_device=pc",
        "https://m.tiktok.com/v/7332187682480590112.html",
        "http://tiktok.com/@u/photo/7332187682480590112/",
        "https://www.tiktok.com/embed/v2/7332187682480590112",
        "https://www.tiktokv.com/share/video/7332187682480590112/",
        "https://WWW.TIKTOK.COM:443/@u/video/7332187682480590112",
    ],
)
def test_every_form_of_a_tiktok_link_names_the_same_post(link: str) -> None:
    assert TIKTOK.canonical(link) == POST


@pytest.mark.parametrize(
    "link",
    [
        "https://www.douyin.com/video/7332187682480590112",
        "https://www.douyin.com/discover?modal_id=7332187682480590112",
        "https://www.iesdouyin.com/share/video/7332187682480590112/?region=CN",
        "https://www.douyin.com/note/7332187682480590112",
    ],
)
def test_every_form_of_a_douyin_link_names_the_same_post(link: str) -> None:
    assert DOUYIN.canonical(link) == SHOT


@pytest.mark.parametrize(
    "link", ["https://vm.tiktok.com/ZMabc/", "https://vt.tiktok.com/ZS/", "https://www.tiktok.com/t/Z"]
)
def test_short_links_must_be_followed(link: str) -> None:
    assert TIKTOK.canonical(link) is None


@pytest.mark.parametrize(
    "link",
    [
        "https://www.youtube.com/watch?v=1",
        "https://tiktok.com.evil.example/@u/video/7332187682480590112",
        "https://eviltiktok.com/@u/video/7332187682480590112",
        "https://www.tiktok.com@evil.example/@u/video/7332187682480590112",
        "https://evil.example/?https://www.tiktok.com/@u/video/7332187682480590112",
        "ftp://www.tiktok.com/@u/video/7332187682480590112",
        "https://[::1/@u/video/1",
        "https://www.tiktok.com:port/@u/video/1",
        "",
    ],
)
def test_links_of_other_sites_are_refused_in_words(link: str) -> None:
    with pytest.raises(UnsupportedLink) as caught:
        TIKTOK.canonical(link, "url")
    assert caught.value.field == "url"


def test_only_two_kinds_of_links_belong_to_one_site() -> None:
    assert [kind for kind in LinkKind if kind.platform] == [LinkKind.TIKTOK, LinkKind.DOUYIN]
