"""Chooses the authorities that TLS connections trust."""

from __future__ import annotations

import ssl
from functools import cache
from pathlib import Path

import httpx

from pipeline.errors import ConfigurationError


def tls_context(ca_file: Path | None) -> ssl.SSLContext:
    """Return a TLS context that trusts the authorities of a PEM file, or ``certifi``'s.

    The process's environment has no influence.

    Raises:
        ConfigurationError: the file cannot be read, or holds no certificates.
    """
    if ca_file is None:
        return _public_authorities()
    try:
        return ssl.create_default_context(cafile=ca_file)
    except OSError as error:  # ssl.SSLError is one too
        raise ConfigurationError("network.ca_file can't be read as a PEM file of certificates.") from error


@cache
def _public_authorities() -> ssl.SSLContext:
    """Return a TLS context that trusts ``certifi``'s authorities, shared within a process: reading them takes 20 ms."""
    return httpx.create_ssl_context(trust_env=False)
