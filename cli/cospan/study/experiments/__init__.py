"""The experiments of docs/experiments: one spec file each, and the modules that play, judge and draw them."""
