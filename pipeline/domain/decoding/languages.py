"""The languages of Whisper, and the codes, BCP 47 tags and names that people use for them.

Whisper's codes are those of ISO 639-1 if there is one, with a few of its own: ``jw`` (Javanese), ``tl`` (Filipino) and
``no`` (Bokmål). The meaning of codes, and which are old or broader names of others, comes from the Unicode CLDR by way
of langcodes.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from functools import cache

from langcodes import Language, closest_supported_match, find, standardize_tag

from pipeline.domain.text.wording import nearest, with_suggestion

FALLBACK_LANGUAGE = "en"
"""Code for recordings without speech, as in Whisper's own tools."""

DETECT_WORDS = frozenset({"", "auto", "automatic", "autodetect", "auto-detect", "detect", "none", "null", "und"})
"""Texts that ask for language detection; ``und`` is the code for "undetermined" in ISO 639-2."""

MAX_DISTANCE = 10
"""Largest distance between a language and its substitute, on the CLDR's scale: 1 from Bokmål to Norwegian, 10 from a
dialect to its macrolanguage (Egyptian Arabic to Arabic)."""

MAX_LENGTH = 100

LANGUAGES: dict[str, str] = {
    "af": "afrikaans",
    "am": "amharic",
    "ar": "arabic",
    "as": "assamese",
    "az": "azerbaijani",
    "ba": "bashkir",
    "be": "belarusian",
    "bg": "bulgarian",
    "bn": "bengali",
    "bo": "tibetan",
    "br": "breton",
    "bs": "bosnian",
    "ca": "catalan",
    "cs": "czech",
    "cy": "welsh",
    "da": "danish",
    "de": "german",
    "el": "greek",
    "en": "english",
    "es": "spanish",
    "et": "estonian",
    "eu": "basque",
    "fa": "persian",
    "fi": "finnish",
    "fo": "faroese",
    "fr": "french",
    "gl": "galician",
    "gu": "gujarati",
    "ha": "hausa",
    "haw": "hawaiian",
    "he": "hebrew",
    "hi": "hindi",
    "hr": "croatian",
    "ht": "haitian creole",
    "hu": "hungarian",
    "hy": "armenian",
    "id": "indonesian",
    "is": "icelandic",
    "it": "italian",
    "ja": "japanese",
    "jw": "javanese",
    "ka": "georgian",
    "kk": "kazakh",
    "km": "khmer",
    "kn": "kannada",
    "ko": "korean",
    "la": "latin",
    "lb": "luxembourgish",
    "ln": "lingala",
    "lo": "lao",
    "lt": "lithuanian",
    "lv": "latvian",
    "mg": "malagasy",
    "mi": "maori",
    "mk": "macedonian",
    "ml": "malayalam",
    "mn": "mongolian",
    "mr": "marathi",
    "ms": "malay",
    "mt": "maltese",
    "my": "myanmar",
    "ne": "nepali",
    "nl": "dutch",
    "nn": "nynorsk",
    "no": "norwegian",
    "oc": "occitan",
    "pa": "punjabi",
    "pl": "polish",
    "ps": "pashto",
    "pt": "portuguese",
    "ro": "romanian",
    "ru": "russian",
    "sa": "sanskrit",
    "sd": "sindhi",
    "si": "sinhala",
    "sk": "slovak",
    "sl": "slovenian",
    "sn": "shona",
    "so": "somali",
    "sq": "albanian",
    "sr": "serbian",
    "su": "sundanese",
    "sv": "swedish",
    "sw": "swahili",
    "ta": "tamil",
    "te": "telugu",
    "tg": "tajik",
    "th": "thai",
    "tk": "turkmen",
    "tl": "tagalog",
    "tr": "turkish",
    "tt": "tatar",
    "uk": "ukrainian",
    "ur": "urdu",
    "uz": "uzbek",
    "vi": "vietnamese",
    "yi": "yiddish",
    "yo": "yoruba",
    "yue": "cantonese",
    "zh": "chinese",
}
"""Code → English name, of the multilingual models (``yue`` only since large-v3)."""


def parse_language(text: str) -> str | None:
    """Return Whisper's code of the language that a text names, or ``None`` if it is to be detected.

    Args:
        text: a code (``de``, ``ger``, ``iw``), a BCP 47 tag (``pt-BR``, ``zh-yue``), a locale (``en_US.UTF-8``), a name
            in English or in another language (``German``, ``deutsch``), or one of ``DETECT_WORDS``.

    Raises:
        ValueError: the text names no language, or none that Whisper knows. The message is a sentence.
    """
    named = "".join(filter(str.isprintable, text)).strip()  # langcodes needs text that UTF-8 can encode
    if named.casefold() in DETECT_WORDS:
        return None
    code = _code_of(named[:MAX_LENGTH]) if len(named) <= MAX_LENGTH else None
    if code is None:
        near = nearest_language(named)
        raise ValueError(
            with_suggestion(
                f"{named[:50]!a} is not a language that Whisper knows",
                f"{near} ({LANGUAGES[near].title()})" if near else None,
                "use a code such as en, de or zh, or a language's name",
            )
        )
    return code


def stated_language(found: str, allowed: Sequence[str]) -> str:
    """Return the language code of a transcript: the detected one, else the first allowed one, else English.

    Clients look the code up in Whisper's table, so there is always one. Its probability is 0 if no speech was detected.
    """
    return found or next(iter(allowed), FALLBACK_LANGUAGE)


def nearest_language(text: str) -> str | None:
    """Return the code that a text without a language most likely means: a typing error, a locale or a country."""
    if close := nearest(_folded(text), _names(), cutoff=0.75):
        return _names()[close]
    prefix = text.strip().lower().replace("_", "-").split("-")[0]
    return prefix if prefix in LANGUAGES else _of_country(prefix)


def _code_of(text: str) -> str | None:
    tag = re.split("[.@]", text)[0].replace("_", "-").strip("-").lower()
    return tag if tag in LANGUAGES else (_from_tag(tag) or _from_name(text))


def _from_tag(tag: str) -> str | None:
    """Return the code for a tag: that of its language, else of the language that represents it (``no`` for ``nb``)."""
    try:
        language = Language.get(standardize_tag(tag, macro=True)).language
    except ValueError:
        return None
    codes = _codes_by_language()
    if language is None or language in codes:
        return codes.get(language or "")
    return codes.get(closest_supported_match(language, [*codes], max_distance=MAX_DISTANCE) or "")


def _from_name(text: str) -> str | None:
    name = text.partition("(")[0].strip()  # "Chinese (Simplified)"
    if code := _names().get(_folded(name)):
        return code
    if "/" in name:  # find would take the first of several names
        return None
    try:
        return _from_tag(find(name).to_tag())
    except LookupError:
        return None


def _of_country(code: str) -> str | None:
    """Return the code of the language that most people of a country speak (``jp``: ``ja``)."""
    if not re.fullmatch("[a-z]{2}", code):
        return None
    country = Language.get(f"und-{code}")
    if country.territory_name().startswith("Unknown"):
        return None
    return _codes_by_language().get(country.maximize().language or "")


@cache
def _codes_by_language() -> dict[str, str]:
    """Return Whisper's codes by those of the CLDR, which differ in a few."""
    return {Language.get(standardize_tag(code, macro=True)).language or code: code for code in LANGUAGES}


@cache
def _names() -> dict[str, str]:
    """Return codes by name: Whisper's name, the CLDR's English name, and the language's own name, all folded."""
    named = [
        (name, code)
        for code, own in LANGUAGES.items()
        for name in (Language.get(code).autonym(), Language.get(code).display_name("en"), own)
    ]
    return {_folded(name): code for name, code in named}


def _folded(name: str) -> str:
    """Return a name without differences that depend on the keyboard: case, and accents on Latin letters."""
    decomposed = unicodedata.normalize("NFKD", name.strip().casefold())
    return re.sub("(?<=[a-z])[\u0300-\u036f]+", "", decomposed)
