"""One file a constraint: the set that H_res is kept in, and the map from free logits onto it."""
