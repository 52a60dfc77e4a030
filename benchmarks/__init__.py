"""Measurements of the whole, run by hand: one command each; results in Markdown and JSON."""
