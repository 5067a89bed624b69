"""What can be asked for: one attribution method a file, and the table of them."""
