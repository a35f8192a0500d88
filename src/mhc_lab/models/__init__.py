"""Backbones: an embedding, a ResidualStack and a head. They know nothing about variants."""
