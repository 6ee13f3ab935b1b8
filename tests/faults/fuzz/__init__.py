"""Fuzzers of everything that reads bytes from outside: ``make fuzz MINUTES=10`` by hand, tests/faults/fuzz in CI.

A reader (``readers/``) is tried with real samples, mutated under a fixed seed, in a process of its own (``worker``), so that
even a crash of the interpreter is a finding. Each input is either accepted or refused with an error of ours, in bounded time
and memory.
"""
