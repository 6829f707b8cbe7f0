"""What stops the stack."""


class StackError(Exception):
    """Something that the person at the keyboard can mend; its text says how."""
