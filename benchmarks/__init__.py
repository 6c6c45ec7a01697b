"""Measurements: `make bench`.  Ratios within one run, on one machine that is named; no pass or fail."""
