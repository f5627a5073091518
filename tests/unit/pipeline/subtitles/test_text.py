from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.domain.text.graphemes import graphemes
from pipeline.subtitles.text import hard_cut, split_text, width_of

THAI = "ผมรักประเทศไทยมากและอยากไปเที่ยว"
KHMER = "ខ្ញុំចង់ទៅលេងនៅប្រទេសកម្ពុជា"
LAO = "ຂ້ອຍຢາກໄປທ່ຽວປະເທດລາວໃນວັນພັກ"
BURMESE = "ကျွန်တော်မြန်မာနိုင်ငံကိုသွားချင်ပါတယ်"
JAPANESE = "彼は昨日、東京タワーで友達と「はい」と言ったそうです。"
CHINESE = "我们昨天在北京大学看了一本非常有意思的书。"
FAMILY, FLAG, THUMB, ENGLAND = (
    "👨‍👩‍👧‍👦",
    "🇩🇪",
    "👍🏽",
    "🏴\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f",
)


@pytest.mark.parametrize(
    ("text", "units"),
    [
        (" Hello,  world\n", "Hello,|world"),
        ("https://example.org/a-b well-known", "https://example.org/a-b|well-known"),
        ("你好。再见！", "你好。|再见！"),
        ("彼は「はい」と言った", "彼は|「はい」|と|言った"),
        (JAPANESE, "彼は|昨日、|東京タワーで|友達と|「はい」|と|言った|そうです。"),
        (CHINESE, "我们|昨天|在|北京|大学|看了|一本|非常|有意思|的|书。"),
        ("他说“你好”然后走了", "他|说|“你好”|然后|走了"),
        ("我用iPhone拍照", "我|用|iPhone拍照"),
        ("안녕하세요 여러분", "안녕하세요|여러분"),
        (THAI, "ผม|รัก|ประเทศไทย|มาก|และ|อยาก|ไป|เที่ยว"),
        ("สวัสดี ครับ", "สวัสดี|ครับ"),
        ("ไปเร็วๆหน่อยนะ กรุงเทพฯสวย", "ไป|เร็วๆ|หน่อย|นะ|กรุงเทพฯ|สวย"),
        ("ສະບາຍດີບໍ່ໆ", "ສະບາຍ|ດີ|ບໍ່ໆ"),
        ("ព្រះអង្គ។ខ្ញុំទៅ", "ព្រះអង្គ។|ខ្ញុំ|ទៅ"),
        ("ကောင်းပါတယ်။ကျေးဇူးတင်ပါတယ်၊", "ကောင်း|ပါ|တယ်။|ကျေးဇူးတင်|ပါ|တယ်၊"),
        ("你好😀😀世界", "你好|😀|😀|世界"),
        (KHMER, "ខ្ញុំ|ចង់ទៅ|លេង|នៅ|ប្រទេស|កម្ពុជា"),
        (LAO, "ຂ້ອຍ|ຢາກ|ໄປ|ທ່ຽວ|ປະເທດ|ລາວ|ໃນ|ວັນ|ພັກ"),
        (BURMESE, "ကျွန်တော်|မြန်မာနိုင်ငံ|ကို|သွား|ချင်|ပါ|တယ်"),
        ("मैं क्षेत्रीय भाषाएँ बोलता हूँ।", "मैं|क्षेत्रीय|भाषाएँ|बोलता|हूँ।"),
        ("السَّلامُ عَلَيْكُمْ، كيف حالك؟", "السَّلامُ|عَلَيْكُمْ،|كيف|حالك؟"),
        ("   ", ""),
    ],
)
def test_text_is_cut_where_a_line_may_be_broken(text: str, units: str) -> None:
    assert "|".join(unit for unit, _ in split_text(text)) == units


def test_a_blank_belongs_to_the_unit_after_it() -> None:
    assert list(split_text(" a 你好再见 b")) == [("a", True), ("你好", True), ("再见", False), ("b", True)]
    assert list(split_text("a")) == [("a", False)]


@given(st.text(alphabet="彼は言った「」、。っァー々（）！？abc1 “”"))
def test_punctuation_stays_where_it_belongs(text: str) -> None:
    for unit, spaced in split_text(text):
        assert spaced or text.strip().startswith(unit) or unit[0] not in "」、。っァー々）！？”"
    units = [unit for unit, _ in split_text(text.replace(" ", ""))]
    assert not any(unit[-1] in "「（“" for unit in units[:-1])


@pytest.mark.parametrize(
    ("unit", "max_width", "parts"),
    [
        (FAMILY * 3, 4, [FAMILY * 2, FAMILY]),
        (FLAG * 3, 5, [FLAG * 2, FLAG]),
        (THUMB * 3, 3, [THUMB] * 3),
        (ENGLAND * 3, 4, [ENGLAND * 2, ENGLAND]),
        ("កម្ពុជា", 4, ["កម្ពុ", "ជា"]),
        ("ប្រទេសកម្ពុជា", 7, ["ប្រទេស", "កម្ពុជា"]),
        ("ประเทศไทยสวยงาม", 10, ["ประเทศไทย", "สวยงาม"]),
        ("東京特許許可局局長", 10, ["東京特許許", "可局局長"]),
        ("言ったっけ", 4, ["言っ", "たっ", "け"]),
        ("https://example.org/one/two", 12, ["https://", "example.org/", "one/two"]),
        ("x" * 10, 4, ["xxxx", "xxxx", "xx"]),
        ("क्षेत्रीय", 4, ["क्षेत्री", "य"]),
        ("ก็ที่สุดแล้วน้ำ", 8, ["ก็ที่สุดแล้ว", "น้ำ"]),
    ],
)
def test_a_wide_unit_is_cut_between_words_else_between_clusters(unit: str, max_width: int, parts: list[str]) -> None:
    assert list(hard_cut(unit, max_width)) == parts


SCRIPTS = st.text(
    st.sampled_from(THAI + KHMER + LAO + BURMESE + JAPANESE + CHINESE + FAMILY + FLAG * 2 + "مرحبا\u0651 ")
)


@given(SCRIPTS, st.integers(10, 40))
def test_no_cluster_is_split(text: str, max_width: int) -> None:
    for unit, _ in split_text(text):
        parts = list(hard_cut(unit, max_width))
        assert [cluster for part in parts for cluster in graphemes(part)] == list(graphemes(unit))
        assert all(width_of(part) <= max_width for part in parts)


@given(st.text())
def test_no_character_is_lost(text: str) -> None:
    assert "".join(unit for unit, _ in split_text(text)) == "".join(text.split())


@given(st.text(min_size=1), st.integers(2, 20))
def test_what_is_wider_than_a_line_is_cut_to_fit(text: str, max_width: int) -> None:
    parts = list(hard_cut(text, max_width))
    assert "".join(parts) == text
    assert all(width_of(part) <= max_width for part in parts)


def test_marks_stay_with_their_character() -> None:
    assert list(hard_cut("e\u0301" * 3, 2)) == ["e\u0301e\u0301", "e\u0301"]


@pytest.mark.parametrize(
    ("text", "columns"),
    [
        ("ab你e\u0301", 5),
        (FAMILY, 2),
        (FLAG, 2),
        (THUMB, 2),
        ("❤️", 2),
        ("1️⃣", 2),
        ("កម្ពុជា", 5),
        ("a\x1b[0m\x00", 4),
        ("", 0),
    ],
)
def test_columns(text: str, columns: int) -> None:
    assert width_of(text) == columns
