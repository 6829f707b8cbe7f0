"""The descriptor config: from files to the rule that a descriptor hits."""
