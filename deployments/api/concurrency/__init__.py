"""Tools that keep the event loop free: worker threads, fair turns, and background tasks."""
