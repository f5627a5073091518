"""Rules for sharing: which task, chunk or request is next, and how many replicas are needed."""
