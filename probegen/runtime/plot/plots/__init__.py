"""One plot a file: `fits` says for which views, `plan` lays it out. The table is in `choose`."""
