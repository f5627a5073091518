"""Rules for tasks: their states, their clients, and their uploads."""
