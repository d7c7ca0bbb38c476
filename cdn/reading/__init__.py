"""Cutting a source into pieces: plan (pure), buffers, and the session that moves the bytes."""
