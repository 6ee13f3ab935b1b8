"""How patient tests are: one factor for every bound, as Python is some 20 times slower in the guest."""

from __future__ import annotations

import os

PATIENCE = float(os.environ.get("JOBLET_TEST_PATIENCE", "1"))
"""What a test multiplies its bounds in seconds by: 1 natively, set by ``make guest-test``. Not for what Joblet promises."""

STRETCH = float(os.environ.get("JOBLET_TEST_STRETCH", "1"))
"""How many times longer a job goes on that has to outlast what its test does meanwhile: for machines that are emulated."""
