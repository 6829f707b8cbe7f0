"""From a config source to rules.

`sources/` gets a config, `schema` has its keys, `parse` reads YAML, `compile` makes rules, `merge` puts files together.
"""
