"""Failed authentication, counted by who failed: guessing at keys is slow from any one address.

A key that is valid is never looked at here: whoever has one goes on, also from an address that
others guess from.
"""

from ipaddress import IPv6Address, ip_address

from catalog.rates import Minutes
from schemas.errors import RateExceeded, Rejection, Unauthorized

FAILURES_MAX = 20
"""Failures a minute of one peer that are told they failed; then it is told to wait."""

PEERS_MAX = 100_000
"""Peers that are told apart within a minute; more than these count as one."""


class Attempts:
    """The failures of this process."""

    def __init__(self, minutes: Minutes | None = None) -> None:
        self._failures = Minutes() if minutes is None else minutes

    def failed(self, address: str) -> Rejection:
        """Count a failure from this address; what to answer."""
        peer = _peer(address)
        if len(self._failures) >= PEERS_MAX:
            peer = "others"
        full = self._failures.hit(peer, FAILURES_MAX)
        if full is None:
            return Unauthorized()
        return RateExceeded(
            "Too many failed authentications",
            policy="authentication",
            limit=FAILURES_MAX,
            wait_s=full.wait_s(FAILURES_MAX),
            cure="and send a valid API key in the x-api-key header",
        )


def _peer(address: str) -> str:
    """Whose an address is: of IPv6, one customer of a provider has 2^64 of them."""
    try:
        ip = ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(ip, IPv6Address):
        return str(ip.ipv4_mapped or IPv6Address(int(ip) >> 64 << 64))
    return address
