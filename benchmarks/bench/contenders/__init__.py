"""Who takes part, one file for each kind; `bench.catalogue` lists them."""
