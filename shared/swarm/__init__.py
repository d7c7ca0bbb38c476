"""The swarm engine: downloads from parents, uploads to children, the link to the scheduler."""
