"""The OpenAPI document, in English and Chinese, and its examples."""
