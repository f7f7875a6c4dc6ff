"""Half precision in CNN inference on CPUs, layer by layer, and why."""
