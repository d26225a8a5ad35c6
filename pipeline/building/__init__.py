"""A build under way: what is asked for, the plan of its stages, and the runner that makes and judges each file."""
