"""Why a request is limited as it is, and what is left of its limits: for `extauth explain` and for the live page."""
