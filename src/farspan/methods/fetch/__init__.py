"""Which of the held entries a step reads; nothing is lost, and what is not read now may be read by the next token."""
