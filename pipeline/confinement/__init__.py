"""Confinement of processes that work on untrusted data, by means of the Linux kernel.

::

    syscalls             numbers of system calls
    seccomp              filters of system calls
    landlock             access to files and TCP ports
    namespaces           users, network and IPC of a process's own
    limits               memory, processor time, files
    profiles             the combination of these for decoders and extractors
    probe                targets of forbidden acts, and the result of trying one
    forbidden_acts       the acts themselves
    fork_server          forking such processes from one that has their libraries loaded
    fork_server_process  starting a fork server and giving it jobs

Each layer is applied if the kernel supports it and left out otherwise; a probe then shows what is still forbidden.
"""
