"""Tasks and pieces as pure values: identity, lengths, bitmaps, digests."""
