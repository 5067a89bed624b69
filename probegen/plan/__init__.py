"""Probe points, selectors and the plan: which tensors are taken. Knows no framework."""
