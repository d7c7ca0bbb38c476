"""Whole folders of a source as one task: what lies below a URL is listed and read once, and travels as a
stream of frames (see ``frames``)."""
