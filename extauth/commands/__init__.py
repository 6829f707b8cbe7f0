"""The subcommands of `extauth` that are no service: a module each, and what they share."""
