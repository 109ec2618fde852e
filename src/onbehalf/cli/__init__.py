"""The command line: each command reads settings, calls one part of the house, and prints. It decides nothing."""
