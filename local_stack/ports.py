"""TCP ports of this machine: finding a free one, and refusing a taken one in clear words."""

import random
import socket

from local_stack.errors import PortTaken

HOST = "127.0.0.1"  # everything of the local stack stays on this machine
PORTS = range(20_000, 32_768)
"""Below those that outgoing connections get: who waits for a server to listen could be given its
port, and would then talk to itself."""


def free_port() -> int:
    """A port nobody listens on now. Another program may take it before you do."""
    return free_ports(1)[0]


def free_ports(count: int) -> list[int]:
    """`count` different ports that nobody listens on now."""
    sockets: dict[int, socket.socket] = {}
    try:
        while len(sockets) < count:
            port = random.choice(PORTS)
            if port in sockets:
                continue
            sockets[port] = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
            try:
                sockets[port].bind((HOST, port))
            except OSError:
                sockets.pop(port).close()
        return list(sockets)
    finally:
        for each in sockets.values():
            each.close()


def require_free(port: int, *, server: str, setting: str) -> None:
    """Raise PortTaken, naming the port, its setting and the cure, if something listens on it."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise PortTaken(
                f"port {port} of {HOST}, where {server} should listen, is taken "
                f"({error.strerror}). Stop the program that uses it, or set {setting} to another."
            ) from error
