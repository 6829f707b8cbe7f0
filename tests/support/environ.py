"""The variables of this process that the services and commands under test get, too."""

import os

INHERITED = {
    name: value
    for name, value in os.environ.items()
    if name == "EXTAUTH_ENGINE"  # the engine where a test does not choose one
    or name.startswith("COVERAGE_")  # set by `./dev test --cov`
}
