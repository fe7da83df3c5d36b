"""What a run says of itself: logs, time, memory, FLOPs, and the watchdog."""
