"""Where desired state comes from: each source reads its own place and makes the desired state follow it."""
