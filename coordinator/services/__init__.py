"""The stories that the endpoints tell: decide, commit, publish."""
