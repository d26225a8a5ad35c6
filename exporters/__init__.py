"""From a PyTorch network to an engine, one file to the next. Knows paths and arrays; never the recipe."""
