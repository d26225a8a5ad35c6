"""Engine backends, one module each: ``available``, ``machine``, ``build``, ``describe``; where RUNS_HERE ``load``."""
