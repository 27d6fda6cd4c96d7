"""Networks: modules with no losses and no loops."""
