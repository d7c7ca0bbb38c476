"""Tasks and pieces on disk, in LMDB."""
