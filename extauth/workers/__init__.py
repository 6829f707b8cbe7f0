"""A service of several processes on one port."""
