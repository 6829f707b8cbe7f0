"""Asks any server of envoy.service.ratelimit.v3 whether it does as specified, over gRPC alone."""
