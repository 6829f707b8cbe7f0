"""What an access log would have met under other rules: it is read, decided by the real limiter, and reported."""
