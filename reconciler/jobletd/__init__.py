"""The daemon: sources, desired state, reconciler, executors, services."""
