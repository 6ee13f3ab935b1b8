"""The gRPC contract in Python: generated code (v1), channel and credentials."""
