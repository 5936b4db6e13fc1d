"""Webhooks: telling back ends what is in the logs, at least once and in order."""
