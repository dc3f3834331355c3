"""How much of everything streams need: the autoscalers' targets, plans, a simulation."""
