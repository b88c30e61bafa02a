"""Pure rules: no I/O, no clock, no framework; one module per concept."""
