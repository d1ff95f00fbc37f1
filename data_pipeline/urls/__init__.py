"""Addresses: their canonical form, their hosts and registered domains."""
