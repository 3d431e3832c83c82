"""Which pairs of tokens are computed while a text is read."""
