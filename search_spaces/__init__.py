"""Ready search spaces, found by name: `autoprune spaces` lists them, `extends: NAME` builds on one."""
