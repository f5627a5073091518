"""The use cases of the service, as functions and small classes that need only the ports."""
