"""Rules without I/O: nothing here waits, and nothing but the standard library is imported."""
