"""Measurements side by side with other tools; nothing here is part of the package."""
