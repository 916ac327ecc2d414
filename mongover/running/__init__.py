"""The execution of a plan under the lease."""
