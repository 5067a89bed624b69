"""The ground of the graph side: a builder of nodes, and questions about values and nodes."""
