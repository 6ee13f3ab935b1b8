"""Traces of runs, from the apply to the outcome: off unless ``tracing.enabled``, and then nothing here costs anything.

``Tracing`` gives each new run its place in a trace, on record with the run, and tells of spans when their ends are on record: so
whichever daemon sees an end tells the same span of it. ``course`` makes spans of what changed, and ``otlp`` alone knows
OpenTelemetry.
"""
