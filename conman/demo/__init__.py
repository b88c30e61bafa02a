"""`conman demo`: the main job on real configuration files, over HTTP, on a stack of its own."""

from __future__ import annotations

from conman.demo.run import run_demo

__all__ = ["run_demo"]
