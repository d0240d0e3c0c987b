"""One HTML file to draw on, in which the network answers."""
