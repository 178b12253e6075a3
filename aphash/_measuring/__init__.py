"""What searches find of the true neighbours: `brute_force` finds these, `recall` is the share of them that is found."""
