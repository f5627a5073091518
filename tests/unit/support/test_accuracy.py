"""Errors are counted as the figures that benchmarks publish say."""

from __future__ import annotations

from math import inf

import pytest

from tests.support.accuracy import ErrorCount, count_errors, distances, errors_by_language


@pytest.mark.parametrize(
    ("lang", "reference", "hypothesis", "errors", "length"),
    [
        ("en", "One two three, four!", "1, 2, 3, 4", 0, 4),
        ("en", "The quick brown fox", "the quick fox jumps", 2, 4),
        ("en", "Hello world.", "", 2, 2),
        ("es", "Uno dos tres.", "uno dos tres cuatro", 1, 3),
        ("zh", "你好世界。", "你 好 世界", 0, 4),
        ("ja", "こんにちは世界。", "こんにちわ世界", 1, 7),
    ],
)
def test_errors_are_counted_on_normalised_text(
    lang: str, reference: str, hypothesis: str, errors: int, length: int
) -> None:
    assert count_errors(lang, reference, hypothesis) == ErrorCount(errors, length)


def test_errors_are_summed_per_language() -> None:
    counts = errors_by_language([("en", "a b", "a"), ("es", "uno", "uno"), ("en", "c d", "c d")])

    assert counts == {"en": ErrorCount(1, 4), "es": ErrorCount(0, 1)}
    assert counts["en"].percent == 25.0


def test_distances_are_those_of_starts_to_starts_and_ends_to_ends() -> None:
    placed = [(1.0, 2.0), (5.0, 6.0)]

    assert distances([(0.9, 2.0), (5.3, 6.5)], placed) == pytest.approx([0.1, 0.0, 0.3, 0.5])
    assert distances(placed, []) == [inf] * 4
