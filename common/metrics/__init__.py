"""How well embeddings of unseen classes retrieve their own class: recall at K, R-precision and MAP@R.

Symbols: Q queries and N references of D numbers, s(q, r) = <q, r> of their embeddings (cosine similarity where they
are normalised), R(q) the number of references of q's class other than q itself, rank 1 the most similar reference.
"""
