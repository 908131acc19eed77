"""Inputs that nobody meant to write, through every reader and command."""
