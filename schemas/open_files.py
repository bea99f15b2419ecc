"""How many files a process may have open: each connection is one, and each file of claims."""

import resource
import sys


def files_max() -> int:
    """How many files the system lets this process have open."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return sys.maxsize if hard == resource.RLIM_INFINITY else hard


def allow_many_files() -> None:
    """Let this process have as many files open as the system allows."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
