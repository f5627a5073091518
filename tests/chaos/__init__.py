"""Real processes are killed, clocks jump, and nothing that was accepted is lost."""
