"""What runs in the interpreters of other tools."""
