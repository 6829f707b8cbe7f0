"""What a config means: its rules as values, in `model`, and which of them a descriptor hits, in `matcher`."""
