"""One HTML file about a trained network: how it learnt, where it is right and wrong."""
