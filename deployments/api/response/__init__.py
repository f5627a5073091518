"""Answers: schemas, envelopes, error responses, and large bodies written in pieces."""
