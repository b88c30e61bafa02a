"""The Git port and its adapters."""

import os

# gRPC's handlers for a fork break its connections, and crash the child, where an event loop forks to start a program, as
# uvloop does; nothing here forks without that. The library reads this when it is imported, so it is said before.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
