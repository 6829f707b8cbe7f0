"""The local stack: every part as a process of this machine, without containers.

`python -m scripts.stack up|down|status|logs` at the project's root, or `Stack` from a test.
"""

from scripts.stack.errors import StackError
from scripts.stack.output import say
from scripts.stack.ports import Ports, Replica, free_ports
from scripts.stack.stack import Stack

__all__ = ["Ports", "Replica", "Stack", "StackError", "free_ports", "say"]
