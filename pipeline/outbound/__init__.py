"""Sends requests to servers outside of the service: callbacks to clients, and prompts to language models."""
