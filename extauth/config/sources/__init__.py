"""Where config comes from."""
