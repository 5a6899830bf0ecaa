"""The magics, one file per subject; `labhub.ipython_ext` registers them."""
