"""A local Temporal and a MongoDB-protocol server for development, demos and tests: `stack.EmbeddedStack`, `up.run_up`."""
