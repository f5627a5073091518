"""Requests the service makes to the outside: callbacks now, language models later."""
