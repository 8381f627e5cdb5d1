"""Double pendulum: the flow map of two point masses on two rods, identified as a law, and networks to compare it with."""
