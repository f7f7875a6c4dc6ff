"""Glyph images: an embedded data set, rendered from the DejaVu text faces that matplotlib ships; see CARD.md."""
