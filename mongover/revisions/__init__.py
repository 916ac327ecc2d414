"""Revision files: their text, header and folder, and how they are written."""
