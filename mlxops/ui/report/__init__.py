"""The HTML page of `run.report`."""
