"""How ranks reach each other: one transport a file."""
