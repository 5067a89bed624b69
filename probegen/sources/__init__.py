"""Where models come from: one kind of source a package."""
