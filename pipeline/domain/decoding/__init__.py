"""Rules for decoding: options, quality, cost, and the text that results."""
