"""Rules for links: platforms, public addresses, and transfer rates."""
