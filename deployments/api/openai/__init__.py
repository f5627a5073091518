"""OpenAI's audio API over the same pipeline, for every OpenAI client."""
