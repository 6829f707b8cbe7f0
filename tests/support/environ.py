"""The engine that services under test run on, where a test does not say: `EXTAUTH_ENGINE`, or the default."""

import os

ENGINE = {name: value for name, value in os.environ.items() if name == "EXTAUTH_ENGINE"}
