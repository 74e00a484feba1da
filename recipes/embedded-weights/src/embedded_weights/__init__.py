"""The recipe of the weights that come with difix-model; run it with `python -m embedded_weights`."""
