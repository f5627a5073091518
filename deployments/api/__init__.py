"""The HTTP surface: routers by noun, schemas, and the one table that turns errors into statuses."""
