"""open_clip towers, the second class token, and weights."""
