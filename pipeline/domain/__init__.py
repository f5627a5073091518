"""The rules of transcription as pure functions and frozen values: no I/O, no clock, no framework."""
