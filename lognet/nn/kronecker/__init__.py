"""Layers whose weights are sums of Kronecker products: PHM, word2ket and Shapeshifter."""
