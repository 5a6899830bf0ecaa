"""The data plane: one shared-memory ring for each channel."""
