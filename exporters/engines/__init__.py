"""Engine backends: one module each with the same verbs ``available``, ``build`` and, where RUNS_HERE, ``load``."""
