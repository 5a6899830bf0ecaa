"""labhub, its peers and the limits of the machine, measured side by side: ``make bench``; see docs/performance.md."""
