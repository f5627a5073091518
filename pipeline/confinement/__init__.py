"""Confinement of processes that work on what strangers wrote, by means of the Linux kernel.

::

    syscalls     numbers of system calls
    seccomp      filters of system calls
    landlock     which files and ports a process may use
    namespaces   users, networks and IPC of its own
    limits       memory, processor time, files
    profiles     which of these a decoder and an extractor get
    probe        tries what is forbidden, and reports what the kernel said
    fork_server  forks such processes from one that has their libraries loaded

Every layer is applied where the kernel has it and left out where it has not; ``probe`` says what holds then.
"""
