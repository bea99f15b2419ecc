"""Why the local stack can't start, in words that say what to do.

StackError            The base: its text is meant for the person at the terminal.
├── PortTaken         Another program listens where a server should.
├── FolderTaken       Another process works on the same data folder.
├── DownloadFailed    The broker's jars could not be fetched whole.
├── ChildFailed       A process ended, or did not answer in time, while starting.
└── Interrupted       A signal asked to stop while something was starting.
"""


class StackError(Exception):
    """The local stack can't do what was asked; the text names the cause and the cure."""


class PortTaken(StackError):
    """Another program listens on the port of a server."""


class FolderTaken(StackError):
    """Another process works on the same data folder."""


class DownloadFailed(StackError):
    """The broker's jars could not be fetched whole."""


class ChildFailed(StackError):
    """A process ended, or did not answer in time, while starting."""


class Interrupted(StackError):
    """A signal asked to stop while something was starting."""
