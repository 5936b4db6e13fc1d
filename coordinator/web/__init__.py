"""HTTP by Litestar: bodies in, views out, errors in the documented shapes."""
