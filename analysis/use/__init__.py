"""A trained model in use: its folder, its network, faces in pictures, and what is said of them."""
