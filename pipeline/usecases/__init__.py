"""What the service does, as plain functions and small classes over the ports."""
