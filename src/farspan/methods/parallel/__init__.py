"""Reading pieces apart: how a long text, or contexts that were read on their own, come to stand side by side."""
