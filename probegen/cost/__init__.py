"""What probes will cost, told before anything is exported."""
