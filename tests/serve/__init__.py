"""Requests over HTTP, by clients of every kind, to a service that runs on Ray."""
