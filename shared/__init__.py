"""What every role is made of: protocol, task and piece maths, store, swarm engine, HTTP, config, metrics."""
