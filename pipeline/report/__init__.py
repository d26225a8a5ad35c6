"""From the ledger to what a person or a machine reads."""
