"""Many runs at once: several on one machine, or a study on the nodes of a cluster."""
