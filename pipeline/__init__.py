"""Everything Murmuration does that needs neither Ray nor an HTTP framework.

``domain`` holds the rules (pure), ``ports`` the seams, ``usecases`` the order of things, and the other rooms the
adapters: ``media``, ``asr``, ``crawl``, ``store``, ``outbound``. ``net``, ``confinement``, ``subtitles``,
``fair_slots`` and ``durable_files`` are what those are built with. ``deployments`` turns it into Serve replicas.
"""
