"""From real images to INT8 ranges and Q/DQ nodes. Knows paths and arrays; never the recipe."""
