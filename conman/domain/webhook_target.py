"""Where webhooks may go: into the internet over TLS, and into networks that the operator names.

Whoever may change an app's settings chooses the URL; without these rules Conman would reach for them what only it can reach: its
own machine, its neighbours, the metadata service of a cloud.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from urllib.parse import urlsplit

from conman.domain.errors import invalid

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

LONGEST_URL = 2048
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_GLOBAL_UNICAST = ipaddress.IPv6Network("2000::/3")
"""All IPv6 addresses that were ever given out for the internet; `is_global` takes others too, site-local ones among them."""
_LOOPBACK_NAMES = ("localhost", "localhost.localdomain")


def check_url(url: str, networks: Sequence[str]) -> None:
    """Refuse a URL that no webhook can have under the operator's `networks`, as far as that shows without looking up its name.

    Raises `validation_error`.
    """
    if len(url) > LONGEST_URL or not url.isascii() or any(c.isspace() or not c.isprintable() for c in url):
        raise invalid("webhook.url", f"must be a URL of at most {LONGEST_URL} visible ASCII characters")
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError as error:
        raise invalid("webhook.url", f"is no URL: {error}") from error
    if parts.scheme not in ("https", "http") or not parts.hostname:
        raise invalid("webhook.url", "must begin with https:// and name a host")
    if parts.username is not None or parts.password is not None or parts.fragment:
        raise invalid("webhook.url", "must have no user, password or fragment: sign with the webhook's secret instead")
    plain = parts.scheme == "http"
    if plain and not networks:
        raise invalid("webhook.url", "must begin with https://: the operator lets no network be reached without TLS")
    host = parts.hostname
    address = _address("127.0.0.1" if host in _LOOPBACK_NAMES or host.endswith(".localhost") else host)
    if address is not None and not may_reach(address, networks, plain=plain):
        raise invalid("webhook.url", f"leads to {host}, which the operator lets no webhook reach (CONMAN_WEBHOOK_NETWORKS)")


def _address(host: str) -> Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def may_reach(address: Address, networks: Sequence[str], *, plain: bool) -> bool:
    """Whether a webhook may connect to an address: one of the operator's `networks`, or else a public one, and that by TLS.

    An address that carries another one in it (IPv4 in IPv6, NAT64, 6to4, Teredo) is judged by both.
    """
    carried = _carried(address)
    if any(_is_in(one, networks) for one in (address, *carried)):
        return True
    return not plain and all(_is_public(one) for one in (*carried, *_itself(address)))


def _is_public(address: Address) -> bool:
    given_out = isinstance(address, ipaddress.IPv4Address) or address in _GLOBAL_UNICAST or address in _NAT64
    return address.is_global and not address.is_multicast and given_out


def _is_in(address: Address, networks: Sequence[str]) -> bool:
    return any(address in ipaddress.ip_network(network) for network in networks)


def _itself(address: Address) -> list[Address]:
    """The address, unless it only wraps the one that is reached."""
    return [] if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None else [address]


def _carried(address: Address) -> list[Address]:
    if isinstance(address, ipaddress.IPv4Address):
        return []
    found: list[Address] = [one for one in (address.ipv4_mapped, address.sixtofour) if one is not None]
    if address.teredo is not None:
        found += address.teredo
    if address in _NAT64:
        found.append(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
    return found
