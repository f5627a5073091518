"""The HTTP surface: routes by noun, schemas, and the one table that maps errors to status codes."""
