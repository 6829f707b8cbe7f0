"""What the live page shows, put together from all parts of the service."""
