"""The procedural world, its tiny trained models, and the demo that takes the whole road with them."""
