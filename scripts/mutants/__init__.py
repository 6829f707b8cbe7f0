"""Mutation testing: do the tests notice a small mistake in the code they cover."""
