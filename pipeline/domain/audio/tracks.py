"""Choosing one of a recording's audio tracks."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pipeline.errors import NoSuchTrack

_ISO_639 = """
aa aar, ab abk, ae ave, af afr, ak aka, am amh, an arg, ar ara, as asm, av ava, ay aym, az aze, ba bak, be bel, bg
bul, bh bih, bi bis, bm bam, bn ben, bo bod tib, br bre, bs bos, ca cat, ce che, ch cha, co cos, cr cre, cs ces cze,
cu chu, cv chv, cy cym wel, da dan, de deu ger, dv div, dz dzo, ee ewe, el ell gre, en eng, eo epo, es spa, et est, eu
eus baq, fa fas per, ff ful, fi fin, fj fij, fo fao, fr fra fre, fy fry, ga gle, gd gla, gl glg, gn grn, gu guj, gv
glv, ha hau, he heb iw, hi hin, ho hmo, hr hrv, ht hat, hu hun, hy hye arm, hz her, ia ina, id ind in, ie ile, ig ibo,
ii iii, ik ipk, io ido, is isl ice, it ita, iu iku, ja jpn, jv jav jw, ka kat geo, kg kon, ki kik, kj kua, kk kaz, kl
kal, km khm, kn kan, ko kor, kr kau, ks kas, ku kur, kv kom, kw cor, ky kir, la lat, lb ltz, lg lug, li lim, ln lin,
lo lao, lt lit, lu lub, lv lav, mg mlg, mh mah, mi mri mao, mk mkd mac, ml mal, mn mon, mr mar, ms msa may, mt mlt, my
mya bur, na nau, nb nob, nd nde, ne nep, ng ndo, nl nld dut, nn nno, no nor, nr nbl, nv nav, ny nya, oc oci, oj oji,
om orm, or ori, os oss, pa pan, pi pli, pl pol, ps pus, pt por, qu que, rm roh, rn run, ro ron rum, ru rus, rw kin, sa
san, sc srd, sd snd, se sme, sg sag, si sin, sk slk slo, sl slv, sm smo, sn sna, so som, sq sqi alb, sr srp, ss ssw,
st sot, su sun, sv swe, sw swa, ta tam, te tel, tg tgk, th tha, ti tir, tk tuk, tl tgl fil, tn tsn, to ton, tr tur, ts
tso, tt tat, tw twi, ty tah, ug uig, uk ukr, ur urd, uz uzb, ve ven, vi vie, vo vol, wa wln, wo wol, xh xho, yi yid
ji, yo yor, za zha, zh zho chi cmn, zu zul
"""
"""Codes of one language: ISO 639-1, ISO 639-2 (terminological, then bibliographic), and usual others."""

_SHORT_CODES = {
    code: codes[0] for codes in (line.split() for line in _ISO_639.replace("\n", " ").split(",")) for code in codes
}
_UNKNOWN_LANGUAGES = frozenset({"", "und", "mul", "zxx", "mis", "qaa", "unk"})

_AUXILIARY_TITLE = re.compile(
    r"comment(ary|aries|aire)|kommentar|comentari|commento|director'?s"
    r"|audio ?-?descri|audiodeskription|described|descriptive|hörfilm|\bdvs\b|\bad\b"
    r"|hearing.impaired|visual(ly)?.impaired|\bkaraoke\b|isolated (score|music)|music only|\bm ?& ?e\b"
    r"|评论|評論|解说|解説|コメンタリー|комментари",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Track:
    """An audio track of a recording."""

    index: int
    """Number among the audio tracks, from 0 (FFmpeg's `0:a:<index>`)."""
    codec: str | None = None
    """FFmpeg's name of the codec; null if FFmpeg does not know it."""
    language: str | None = None
    """ISO 639 code in the file."""
    title: str | None = None
    """Title in the file."""
    channels: int | None = None
    """Number of channels; null if the codec is not known."""
    default: bool = False
    """True if the file marks it as a default track."""
    auxiliary: bool = False
    """True for a commentary, an audio description or similar, by its flags or its title."""
    decodable: bool = True
    """True if there is a decoder for it."""
    silent: bool | None = None
    """True if it begins with digital silence; null if the track was not probed."""
    chosen: bool = False
    """True for the track that was transcribed."""

    @property
    def rank(self) -> tuple[Any, ...]:
        """Sort key: the best track comes first."""
        return not self.decodable, bool(self.silent), self.auxiliary, not self.default, self.index

    @property
    def label(self) -> str:
        """Index, codec and the file's own description of the track, for use in a sentence."""
        flags = ("commentary or the like" if self.auxiliary else None, "default" if self.default else None)
        title = f"“{self.title}”" if self.title else None
        known = filter(None, (self.codec or "unknown codec", self.language, title, *flags))
        return f"{self.index} ({', '.join(known)})"


def candidates(tracks: Sequence[Track], wanted: str | None = None) -> tuple[Track, ...]:
    """Return the tracks that may be transcribed, the best first.

    Args:
        tracks: all audio tracks of the recording.
        wanted: an index or a language; ``None`` for any track.

    Raises:
        NoSuchTrack: no track has that index or language.
    """
    fitting = tracks if wanted is None else [track for track in tracks if _fits(track, wanted.strip())]
    if not fitting:
        listed = ", ".join(track.label for track in tracks)
        raise NoSuchTrack(f"The recording has no audio track {str(wanted)[:35]!r}. It has: {listed}.")
    return tuple(sorted(fitting, key=lambda track: track.rank))


def mark_chosen(tracks: Iterable[Track], index: int) -> tuple[Track, ...]:
    """Return the tracks with the chosen one marked."""
    return tuple(replace(track, chosen=track.index == index) for track in tracks)


def known_language(code: str | None) -> str | None:
    """Return the code if it names a language, or ``None`` if it means that the language is not known."""
    code = (code or "").strip()
    return None if code.lower() in _UNKNOWN_LANGUAGES else code


def is_auxiliary_title(title: str | None) -> bool:
    """Return whether the title is that of a commentary, an audio description or similar."""
    return bool(title and _AUXILIARY_TITLE.search(title))


def _fits(track: Track, wanted: str) -> bool:
    if wanted.isascii() and wanted.isdigit():
        return track.index == int(wanted)
    return track.language is not None and short_code(track.language) == short_code(wanted)


def short_code(language: str) -> str:
    """Return a language's shortest code: ``eng``, ``en-GB`` and ``EN`` are ``en``."""
    code = re.split("[-_]", language.strip().lower())[0]
    return _SHORT_CODES.get(code, code)
