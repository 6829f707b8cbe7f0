"""Decides: from requests to plans, from plans to verdicts. No I/O and no clock of its own."""
