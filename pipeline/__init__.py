"""The service without Ray and without an HTTP framework.

``domain`` holds the rules (pure), ``ports`` the Protocols, ``usecases`` the order of the steps. The adapters are
``media``, ``asr``, ``crawl``, ``store`` and ``outbound``. They are built with ``net``, ``confinement``, ``subtitles``
and the modules beside this one. ``testing`` holds the fakes. ``deployments`` makes Ray Serve replicas of all this.
"""
