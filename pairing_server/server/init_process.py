"""The first process of a container, which the kernel makes the parent of every process that has lost its own.

It has to wait for those when they end (the embedded PostgreSQL's, and what a health check has started), or they stay in the
table of processes as zombies. The server itself cannot: it would take the ends of its own child processes from subprocess.
"""

from __future__ import annotations

import os
import signal

_FORWARDED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGABRT)
_AWAITED = (*_FORWARDED, signal.SIGCHLD)


def split_off() -> None:
    """In the first process of a container: go on in a child, while this one hands signals on, waits for all that end, and
    ends as the child does. Elsewhere this does nothing. Call it before there is a thread."""
    if os.getpid() != 1:
        return
    # They stay blocked here and are waited for: a handler would miss one that comes just before the wait.
    signal.pthread_sigmask(signal.SIG_BLOCK, _AWAITED)
    child = os.fork()
    if child == 0:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _AWAITED)
        return
    while True:
        received = signal.sigwait(_AWAITED)
        if received != signal.SIGCHLD:
            os.kill(child, received)
            continue
        while (ended := os.waitpid(-1, os.WNOHANG)) != (0, 0):
            if ended[0] == child:
                code = os.waitstatus_to_exitcode(ended[1])
                # As shells and container engines count the ends by a signal.
                os._exit(code if code >= 0 else 128 - code)
