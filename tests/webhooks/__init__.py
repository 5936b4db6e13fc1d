"""Webhooks from outside: a back end that is told by real nodes, and what admins do with it."""
