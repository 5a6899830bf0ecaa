"""The control plane without I/O: messages, their bytes, and both ends of a conversation."""
