"""Passes on the finished graph."""
