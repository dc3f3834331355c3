"""Scores of whole pipeline runs: metrics, plots and a report."""
