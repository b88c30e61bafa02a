"""Programs of the operator, run within limits, and none of their processes left behind (`spec.md` 9)."""
