"""Labelled footage in one typed form: readers, writers, crops and repainted kits."""
