"""Responses: schemas, envelopes, errors, event streams, and large bodies written in pieces."""
