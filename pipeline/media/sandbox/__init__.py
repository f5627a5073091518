"""The sandbox: each untrusted recording is opened in a process of its own, whose only way out is a socket to us.

::

    replica ─── jobs ───► fork server ── fork ──► one child per recording
       ▲                                                 │
       └────────── read requests, sound, results ────────┘

    sandbox              starting children and giving them jobs
    decoder_child        the parent's view of one child: its messages and its end
    sandboxed_decoder    decoding and extraction in a child
    decoder_messages     the messages between a child and its parent
    decoder_jobs         the work that children do
    decoder_fork_server  the process that has loaded the codecs and forks a child in a few milliseconds

``pipeline.confinement`` removes the rights that a child does not need. Python's own ``forkserver`` is not used, since
it would run the main module, which is Ray's worker, in every child.
"""
