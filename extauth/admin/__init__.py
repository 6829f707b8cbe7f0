"""The HTTP side for operators: metrics, health, the rules in force."""
