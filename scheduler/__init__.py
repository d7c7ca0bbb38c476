"""The control plane: leases, tasks, parent placement, origin grants."""
