"""How Touchline is run: `local` on one machine, images and manifests elsewhere."""
