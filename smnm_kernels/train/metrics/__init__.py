"""How good predictions are, how sure that is, and files and pictures of them."""
