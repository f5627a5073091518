"""Subtitles from segments: cues that people can read, and a writer for each file format."""
