"""Acts on a decision: cuts, folds, masks, factorises and stores models."""
