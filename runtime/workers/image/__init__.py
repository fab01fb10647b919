"""The image that workers are made from: a small Debian with Python and nothing of ours in it."""
