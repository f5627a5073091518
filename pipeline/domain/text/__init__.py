"""Rules for text that people read: file names, graphemes, and sentences."""
