"""Which requests are counted together, and how much is taken at once (`api.md` 1)."""

from __future__ import annotations

import pytest

from conman.domain.rate_limit import Bucket, address_group, bucket_of, portion, window_end, window_of

FILES = "/api/apps/a/workspaces/w/files"


@pytest.mark.parametrize(
    ("method", "path", "bucket"),
    [
        ("POST", "/api/auth/login", Bucket.AUTH),
        ("POST", "/api/auth/logout", Bucket.AUTH),
        ("GET", FILES, Bucket.FILES),
        ("PUT", FILES, Bucket.FILES),
        ("DELETE", FILES, Bucket.FILES),
        ("GET", f"{FILES}/raw", Bucket.FILES),
        ("POST", f"{FILES}/batch", Bucket.FILES),
        ("GET", "/api/apps/files/workspaces", Bucket.READS),
        ("HEAD", "/api/me", Bucket.READS),
        ("GET", "/api/me", Bucket.READS),
        ("POST", "/api/apps", Bucket.WRITES),
        ("PATCH", "/api/me", Bucket.WRITES),
        ("DELETE", "/api/apps/a/workspaces/w", Bucket.WRITES),
        ("POST", "/api/apps/a/workspaces/w/filesystem", Bucket.WRITES),
    ],
)
def test_the_bucket_of_a_request(method: str, path: str, bucket: Bucket) -> None:
    assert bucket_of(method, path) is bucket


@pytest.mark.parametrize(
    ("bucket", "limit", "expected"),
    [
        (Bucket.READS, 1200, 20),
        (Bucket.FILES, 300, 5),
        (Bucket.FILES, 60, 1),
        (Bucket.READS, 59, 1),
        (Bucket.READS, 1, 1),
        (Bucket.AUTH, 6000, 1),
        (Bucket.WRITES, 6000, 1),
    ],
)
def test_a_sixtieth_of_reads_and_files_is_taken_at_once_and_one_of_the_others(bucket: Bucket, limit: int, expected: int) -> None:
    assert portion(bucket, limit) == expected


@pytest.mark.parametrize(("seconds", "window", "end"), [(0, 0, 60), (59.999, 0, 60), (60, 1, 120)])
def test_a_window_is_a_minute_by_the_clock(seconds: float, window: int, end: int) -> None:
    assert window_of(seconds) == window
    assert window_end(window) == end


@pytest.mark.parametrize(
    ("address", "group"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3::4", "2001:db8:1:2::/64"),
        ("2001:0db8:1:2:ffff::", "2001:db8:1:2::/64"),
        ("::1", "::/64"),
        ("testclient", "testclient"),
        ("", "unknown"),
        (None, "unknown"),
    ],
)
def test_an_ipv6_address_is_counted_with_its_network(address: str | None, group: str) -> None:
    assert address_group(address) == group
