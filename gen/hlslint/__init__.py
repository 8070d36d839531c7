"""A checker of what g++ does not notice in sources and configurations for Vitis."""
