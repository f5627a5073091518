"""From a link or a URL to a recording in the MediaStore.

Plain URLs are fetched by our guarded HTTP client. Links go to yt-dlp first, which runs in a process of its own, without
secrets and without connections but those through a guarding proxy in ours (``pipeline.net.guarding_proxy``).

::

    crawler     the port: a URL or link in, signs of life and a stored recording out
    download    one file over HTTP, resumed where it breaks off
    extractors  our side of the conversation with yt-dlp's processes
    zygote      their parent, which has yt-dlp loaded and forks one for each link
    child       such a process
    wire        what is said between them
    diagnosis   what yt-dlp says went wrong, as errors of ours
    links       short links, followed within their site
    names       types from bytes, and names for files
"""
