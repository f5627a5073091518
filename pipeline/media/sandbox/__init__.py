"""Untrusted recordings are opened in a process of their own, which has nothing but a socket to us.

::

    replica ── jobs ──► zygote ── fork ──► one child per recording
       ▲                                        │
       └── questions for bytes, sound, results ─┘

``zygote`` is a small process that has loaded the codecs and forks a child for each recording (a few milliseconds);
``pipeline.confinement`` takes from the child what it does not need; ``jobs`` is what it does; ``wire`` how it talks;
``parent`` is our side. Python's own ``forkserver`` would run the main module, Ray's worker, in every child.
"""
