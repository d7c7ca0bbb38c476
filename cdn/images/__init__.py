"""Container images as tasks: what stands for their tags, manifests and blobs in the swarm."""
