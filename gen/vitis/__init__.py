"""Inputs of the Vitis tools for a build, and the runs of those tools."""
