"""Delivery of callbacks."""
