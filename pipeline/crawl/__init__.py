"""Fetches recordings from URLs and links into the MediaStore.

The guarded HTTP client fetches plain URLs. Links go to yt-dlp first. It runs in a process of its own without secrets,
whose only connections go through a guarding proxy in the Crawler's process (``pipeline.net.guarding_proxy``).

::

    crawler                the adapter of the port: a URL or link in, heartbeats and a stored recording out
    download               download of one file over HTTP, resumed after a broken connection
    extractor_processes    start of yt-dlp's processes, and sessions with them
    extractor_fork_server  fork server that has yt-dlp loaded and forks one process for each link
    extractor_child        the process that reads the pages of one link
    extractor_confinement  the confinement of that process
    extractor_messages     messages between a session and its process
    diagnosis              translation of yt-dlp's failures to the service's errors
    short_links            resolution of a platform's short links
    media_names            file types from first bytes, and file names
"""
