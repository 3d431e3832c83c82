"""Where tokens stand, for texts longer than a model was trained on: new frequencies for its rotary positions."""
