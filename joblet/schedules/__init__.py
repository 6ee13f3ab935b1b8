"""When jobs are due: the arithmetic of schedules, without clocks and without state. Client and daemon share it."""

from joblet.schedules.timetable import At, Cron, Every, Timetable, latest_tick, latest_ticks, tick_after

__all__ = ["At", "Cron", "Every", "Timetable", "latest_tick", "latest_ticks", "tick_after"]
