"""What holds for every test: how property tests search, and how the servers' Java runs.

Property tests try the same examples in every run of `make test`, fresh ones in `make fuzz`.
"""

from __future__ import annotations

import os

from hypothesis import settings

settings.register_profile("check", derandomize=True, database=None, deadline=None)
settings.register_profile("fuzz", max_examples=int(os.environ.get("FUZZ_EXAMPLES", "2000")), database=None, deadline=None)
settings.load_profile("check")

# A server of the tests ends before what a compiler for long lives makes of its code has paid off.
os.environ.setdefault("JAVA_TOOL_OPTIONS", "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC")
