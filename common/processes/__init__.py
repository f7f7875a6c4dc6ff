"""Tensors over the processes of one training: of a batch, of a gradient, of weights. Alone, nothing happens."""
