"""One folder per domain. Each folder's module declares ``SUITES``, its suites by name."""
