"""Rules for audio: time spans, levels, voice activity, tracks, and chunks."""
