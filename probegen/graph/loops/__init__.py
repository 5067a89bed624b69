"""`Loop` and `Scan`: read as iterations, and written for gradients."""
