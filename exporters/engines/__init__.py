"""Engine backends, one module each: ``available``, ``machine``, ``build`` and, where RUNS_HERE, ``load``."""
