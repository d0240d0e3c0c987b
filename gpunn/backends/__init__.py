"""Devices: the contract that a network computes through, and one implementation for each kind."""
