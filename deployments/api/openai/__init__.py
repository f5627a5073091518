"""OpenAI's audio API over the same pipeline: what every OpenAI client can talk to."""
