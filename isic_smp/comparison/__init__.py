"""Comparing runs by their per-image scores: finding runs, grouping them, statistics, pictures, a report."""
