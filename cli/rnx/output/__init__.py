"""How results look: tables, status lines, JSON, YAML."""
