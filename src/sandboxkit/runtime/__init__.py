"""The only part that touches the kernel: the launcher, open sandboxes, runs, and what this host offers."""
