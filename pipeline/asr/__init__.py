"""Speech recognition: models, engines, voice activity, and the batching of chunks across requests."""
