"""Tools that keep the event loop free: worker threads, a fair semaphore, and background tasks."""
