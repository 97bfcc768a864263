"""Keeps track of who spent what."""
