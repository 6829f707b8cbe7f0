"""From a config source to rules."""
