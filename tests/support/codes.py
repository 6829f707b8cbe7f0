"""The codes of an answer, as envoy/service/ratelimit/v3/rls.proto numbers them in RateLimitResponse.Code."""

from typing import Final

OK: Final = 1
OVER_LIMIT: Final = 2
