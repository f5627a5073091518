"""Everything Murmuration does that needs neither Ray nor an HTTP framework.

``domain`` holds the rules (pure), ``ports`` the seams, ``usecases`` the order of things, and the other rooms the
adapters: ``media``, ``asr``, ``store``, ``subtitles``, ``outbound``. ``deployments`` turns it into Serve replicas.
"""
