"""Readers of the reports that Vitis writes."""
