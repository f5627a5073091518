"""Murmuration as a Ray Serve application: deployments, their HTTP interface, and the code that connects them."""
