"""What the product keeps, in the tests' own process: on a database in which no node works."""
