"""Tells this machine from others."""

from __future__ import annotations

import ipaddress


def is_this_machine(host: str) -> bool:
    """Return True for a loopback address, also for one of IPv4 in the form of IPv6."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return (mapped or address).is_loopback
