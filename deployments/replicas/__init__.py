"""The Serve deployments, one module each, and the preparation that every replica shares."""
