"""extauth: a global rate limit service for Envoy."""
