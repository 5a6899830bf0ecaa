"""How long one slot takes: ping-pong and wake-up, in the rows of ``make bench``; see docs/performance/latency.md."""
