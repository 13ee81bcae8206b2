"""Replicate's predictions API, spoken over the native one."""
