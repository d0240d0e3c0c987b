"""Several processes (ranks) that train one network together, by MPI.

MPI does the work: it starts the ranks and carries what they say to each other. Here is what they
say: one sum a step, in an order that does not change; what they must agree on; and how they end
together.
"""
