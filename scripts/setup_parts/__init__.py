"""The parts of scripts/setup.py: checks, Python environment, data, cargo's settings."""
