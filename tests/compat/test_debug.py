"""What the debug port has besides ours."""

from extauth.compat.debug import config_lines
from extauth.config.merge import load_rules
from extauth.rules.masking import Masking
from extauth.rules.matcher import Matcher

CONFIG = """
domain: shop
descriptors:
  - key: path
    value: /a
    rate_limit: {unit: minute, requests_per_unit: 5}
    descriptors:
      - {key: user, shadow_mode: true, rate_limit: {unit: week, requests_per_unit: 7}}
  - {key: api_key, value: hush-hush, quota_mode: true, rate_limit: {unit: day, requests_per_unit: 1}}
  - {key: vip, rate_limit: {unlimited: true}}
  - {key: /auth/*, value: /auth/*, rate_limit: {unit: hour, requests_per_unit: 3}}
"""


def test_a_line_a_limit_with_secrets_masked() -> None:
    masking = Masking("secret")
    masked = masking.mask("hush-hush")
    lines = list(config_lines(Matcher(load_rules({"f.yaml": CONFIG}), masking)))
    assert lines == [
        "shop.path_/a: unit=MINUTE requests_per_unit=5, shadow_mode: false, quota_mode: false\n",
        "shop.path_/a.user: unit=WEEK requests_per_unit=7, shadow_mode: true, quota_mode: false\n",
        f"shop.api_key_{masked}: unit=DAY requests_per_unit=1, shadow_mode: false, quota_mode: true\n",
        "shop.vip: unit=UNKNOWN requests_per_unit=0, shadow_mode: false, quota_mode: false\n",
        "shop./auth/*_/auth/*: unit=HOUR requests_per_unit=3, shadow_mode: false, quota_mode: false\n",
    ]
