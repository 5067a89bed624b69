"""Passes on the forward graph, before it is differentiated."""
