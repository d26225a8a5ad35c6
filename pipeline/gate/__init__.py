"""A finished build as a list of findings, one a stage and check; held against an earlier build if asked."""
