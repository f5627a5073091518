"""The Ray cluster: its nodes, and checks that they fit the configuration and share their storage."""
