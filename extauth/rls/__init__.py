"""The messages of envoy.service.ratelimit.v3."""
