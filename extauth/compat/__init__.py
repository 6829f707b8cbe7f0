"""Compatible mode: serves in the place of envoyproxy/ratelimit, by its variables and on its ports."""
