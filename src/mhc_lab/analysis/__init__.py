"""What can be learnt without training: the t_max and precision that a model needs, and which mixers matter."""
