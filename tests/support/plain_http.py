"""What clients need that only speak plain HTTP to a server of the test's own."""

from __future__ import annotations

import ssl

NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""As `verify` of a client: else each one reads all authorities first, which takes longer than many requests."""
