"""ASGI middleware that every request passes before it reaches a route, so that no route can omit it."""
