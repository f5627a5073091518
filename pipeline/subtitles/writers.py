"""One writer for each subtitle format.

Srt, vtt, ass and lrc show cues, laid out by the style. Txt, tsv and json hold the segments as they are, in the form of
OpenAI's ``whisper`` command, for programs to read.
"""

from __future__ import annotations

import html
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from types import MappingProxyType

from pysubs2 import SSAEvent, SSAFile

from pipeline.domain.decoding.transcript import Transcript
from pipeline.errors import InvalidValue
from pipeline.subtitles.cues import Cue, CueStyle, karaoke_frames, shape_cues, spaced_text


@dataclass(frozen=True, slots=True)
class SubtitleFormat:
    """A subtitle format: its media type and its writer."""

    media_type: str
    write: Callable[[Transcript, CueStyle], str]


def write_subtitles(transcript: Transcript, output_format: str, style: CueStyle) -> str:
    """Write a transcript in one of ``FORMATS``.

    Raises:
        InvalidValue: ``highlight_words`` is set, and the transcript has no word times.
    """
    if style.highlight_words and transcript.segments and not any(segment.words for segment in transcript.segments):
        raise InvalidValue(
            "highlight_words needs the times of words: create the task with word_timestamps=true.", "highlight_words"
        )
    return FORMATS[output_format].write(transcript, style)


def _frames_or_cues(transcript: Transcript, style: CueStyle) -> list[Cue]:
    cues = shape_cues(transcript, style)
    return karaoke_frames(cues) if style.highlight_words else cues


def _srt(transcript: Transcript, style: CueStyle) -> str:
    """Write SubRip. It has no escapes, so an arrow, which would look like a line of times, is replaced."""
    return "".join(
        f"{cue.number}\n{_clock(cue.start_ms, ',')} --> {_clock(cue.end_ms, ',')}\n"
        f"{_underlined(cue, lambda text: text.replace('-->', '→'))}\n\n"
        for cue in _frames_or_cues(transcript, style)
    )


def _vtt(transcript: Transcript, style: CueStyle) -> str:
    """Write WebVTT (W3C Candidate Recommendation, 2019)."""
    return "WEBVTT\n\n" + "".join(
        f"{cue.number}\n{_clock(cue.start_ms, '.')} --> {_clock(cue.end_ms, '.')}\n"
        f"{_underlined(cue, lambda text: html.escape(text, quote=False))}\n\n"
        for cue in _frames_or_cues(transcript, style)
    )


def _ass(transcript: Transcript, style: CueStyle) -> str:
    """Write Advanced SubStation Alpha, with times in hundredths of a second; karaoke tags mark words."""
    script = SSAFile()
    script.events = [
        SSAEvent(cue.start_ms // 10 * 10, cue.end_ms // 10 * 10, text=_ass_text(cue, karaoke=style.highlight_words))
        for cue in shape_cues(transcript, style)
    ]
    return str(script.to_string("ass"))


def _lrc(transcript: Transcript, style: CueStyle) -> str:
    """Write LRC: one line for each cue, with word times in the enhanced format if words are marked."""
    one_line = replace(style, max_line_width=style.max_line_width * style.max_lines, max_lines=1)
    return "".join(
        f"[{_minutes(cue.start_ms)}]{_lrc_text(cue, karaoke=style.highlight_words)}\n"
        for cue in shape_cues(transcript, one_line)
    )


def _txt(transcript: Transcript, _: CueStyle) -> str:
    return "".join(f"{text}\n" for segment in transcript.segments if (text := " ".join(segment.text.split())))


def _tsv(transcript: Transcript, _: CueStyle) -> str:
    """Write tab-separated values, with times in whole milliseconds, which no locale can misread."""
    latest = int(transcript.info.duration * 1000)
    rows = (
        f"{min(round(segment.start * 1000), latest)}\t{min(round(segment.end * 1000), latest)}\t{text}\n"
        for segment in transcript.segments
        if (text := " ".join(segment.text.split()))
    )
    return "start\tend\ttext\n" + "".join(rows)


def _json(transcript: Transcript, _: CueStyle) -> str:
    content = {
        "text": transcript.text,
        "segments": [asdict(segment) for segment in transcript.segments],
        "language": transcript.info.language,
    }
    return "".join(json.JSONEncoder(ensure_ascii=False).iterencode(content))  # in steps, so that other threads can run


FORMATS: Mapping[str, SubtitleFormat] = MappingProxyType(
    {
        "srt": SubtitleFormat("text/srt; charset=utf-8", _srt),
        "vtt": SubtitleFormat("text/vtt; charset=utf-8", _vtt),
        "ass": SubtitleFormat("text/x-ssa; charset=utf-8", _ass),
        "lrc": SubtitleFormat("text/plain; charset=utf-8", _lrc),
        "txt": SubtitleFormat("text/plain; charset=utf-8", _txt),
        "tsv": SubtitleFormat("text/tab-separated-values; charset=utf-8", _tsv),
        "json": SubtitleFormat("application/json", _json),
    }
)
"""Every format by its name, which is also its file extension."""


def _underlined(cue: Cue, escape: Callable[[str], str]) -> str:
    """Return the cue's text with the spoken word underlined, as OpenAI's ``whisper`` marks it."""
    lines, index = [], 0
    for line in cue.lines:
        texts = []
        for text in spaced_text(line):
            escaped = escape(text)
            blank = " " if index == cue.spoken and escaped.startswith(" ") else ""
            texts.append(f"{blank}<u>{escaped.lstrip()}</u>" if index == cue.spoken else escaped)
            index += 1
        lines.append("".join(texts))
    return "\n".join(lines)


def _ass_text(cue: Cue, *, karaoke: bool) -> str:
    lines, passed = [], cue.start_ms // 10
    for line in cue.lines:
        texts = []
        for piece, text in zip(line, spaced_text(line), strict=True):
            end = max(passed, min(round(piece.end_s * 100), cue.end_ms // 10))
            texts.append(f"{{\\k{end - passed}}}{_ass_escape(text)}" if karaoke else _ass_escape(text))
            passed = end
        lines.append("".join(texts))
    return "\\N".join(lines)


def _ass_escape(text: str) -> str:
    """Escape text: a word joiner keeps a backslash from starting a tag, a backslash keeps a brace from a block."""
    return text.replace("\\", "\\\u2060").replace("{", "\\{").replace("}", "\\}")


def _lrc_text(cue: Cue, *, karaoke: bool) -> str:
    if not karaoke:
        return cue.text
    return " ".join(
        "".join(
            f"{' ' if text.startswith(' ') else ''}<{_minutes(max(cue.start_ms, round(piece.start_s * 1000)))}>"
            f"{text.lstrip()}"
            for piece, text in zip(line, spaced_text(line), strict=True)
        )
        for line in cue.lines
    )


def _clock(time_ms: int, decimal_mark: str) -> str:
    seconds, ms = divmod(time_ms, 1000)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02d}:{minutes:02d}:{seconds:02d}{decimal_mark}{ms:03d}"


def _minutes(time_ms: int) -> str:
    minutes, rest_ms = divmod(time_ms, 60_000)
    return f"{minutes:02d}:{rest_ms // 1000:02d}.{rest_ms % 1000 // 10:02d}"
