"""What this build was checked with: the report of `scripts/test-clients`, shipped with it."""
