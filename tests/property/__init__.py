"""Laws, on generated cases."""
