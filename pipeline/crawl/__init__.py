"""Fetches recordings from URLs and links into the MediaStore.

The guarded HTTP client fetches plain URLs. Links go to yt-dlp first. It runs in a process of its own without secrets,
whose only connections go through a guarding proxy in the Crawler's process (``pipeline.net.guarding_proxy``).

::

    crawler                the adapter of the port: a URL or link in, heartbeats and a stored recording out
    running_crawl          counts and times of a crawl that runs
    site_access            network, cookies and user agent for a site, from the settings
    download               download of one file over HTTP, resumed after a broken connection
    short_links            resolution of a platform's short links
    extractor_processes    start of the processes that read pages, one for each link
    extractor_process      one such process, as the service sees it
    page_session           the session with it: the page, then the recording if the process assembles it
    extractor_fork_server  fork server that has yt-dlp loaded and forks those processes
    extractor_child        the work of the process: yt-dlp reads the pages of one link
    extractor_confinement  its confinement
    extractor_messages     messages between a session and its process
    diagnosis              translation of yt-dlp's failures to the service's errors
    media_names            file types from first bytes, and file names
"""
