"""Postgres: tables, the one transaction, and every line of SQL."""
