"""One room per domain; each declares a `SUITE`."""
