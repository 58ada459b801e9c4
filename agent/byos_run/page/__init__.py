"""HTML from values: the page of a run, the page of a DOE. No store, no jobs, nothing from elsewhere."""
