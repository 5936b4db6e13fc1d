"""What the endpoints do: decide, commit, publish."""
