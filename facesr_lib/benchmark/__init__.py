"""How fast this machine is: searches and training."""
